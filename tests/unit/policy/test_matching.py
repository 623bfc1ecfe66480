"""Matching: every need and every avoid is judged, and doubt means no."""

import msgspec
import pytest

from hostler.contracts.needs import Avoid, Lane, Needs
from hostler.contracts.offer import Offer, Pool
from hostler.policy.matching import fits, lacks, problems

OFFER = Offer(
    kinds=("image.generate",),
    service="comfyui",
    models=("sdxl", "vae"),
    labels={"tier": "gold"},
    versions={"comfyui": "0.3.40", "odd": "not a version"},
    isolation=("none", "process"),
    pools={"gpu_memory": Pool(id="gpu0", total=24.0)},
)


def lane(needs: dict[str, object] | None = None, avoid: dict[str, object] | None = None) -> Lane:
    return Lane(
        kind="image.generate", needs=msgspec.convert(needs or {}, Needs), avoid=msgspec.convert(avoid or {}, Avoid)
    )


@pytest.mark.parametrize(
    "needs",
    [
        {},
        {"service": "comfyui"},
        {"models": ["vae"]},
        {"models": ["vae", "sdxl"]},
        {"labels": {"tier": "gold"}},
        {"versions": {"comfyui": ">=0.3,<1"}},
        {"isolation": "process"},
        {"amounts": {"gpu_memory": 24, "slots": 1}},
    ],
)
def test_a_need_that_is_met_fits(needs: dict[str, object]) -> None:
    assert fits(lane(needs), [OFFER], worker="w") == 0
    assert lacks(lane(needs), [OFFER], worker="w") == ()


@pytest.mark.parametrize(
    ("needs", "key", "wanted", "has"),
    [
        ({"service": "openai"}, "service", "openai", "comfyui"),
        ({"models": ["flux"]}, "models", ["flux"], ["sdxl", "vae"]),
        ({"models": ["sdxl", "flux"]}, "models", ["sdxl", "flux"], ["sdxl", "vae"]),
        ({"labels": {"tier": "silver"}}, "labels.tier", "silver", "gold"),
        ({"labels": {"region": "eu"}}, "labels.region", "eu", None),
        ({"versions": {"comfyui": ">=0.4"}}, "versions.comfyui", ">=0.4", "0.3.40"),
        ({"versions": {"torch": ">=2"}}, "versions.torch", ">=2", None),
        ({"versions": {"odd": ">=1"}}, "versions.odd", ">=1", "not a version"),
        ({"versions": {"comfyui": "newest"}}, "versions.comfyui", "newest", "0.3.40"),
        ({"isolation": "container"}, "isolation", "container", ["none", "process"]),
        ({"amounts": {"gpu_memory": 24.5}}, "amounts.gpu_memory", 24.5, 24.0),
        ({"amounts": {"tokens": 1}}, "amounts.tokens", 1.0, None),
    ],
)
@pytest.mark.row("001:331")
def test_a_need_that_is_not_met_is_named(needs: dict[str, object], key: str, wanted: object, has: object) -> None:
    assert fits(lane(needs), [OFFER], worker="w") is None
    assert lacks(lane(needs), [OFFER], worker="w") == ((key, wanted, has),)


@pytest.mark.parametrize(
    ("avoid", "key"),
    [
        ({"service": "comfyui"}, "avoid.service"),
        ({"models": ["flux", "vae"]}, "avoid.models"),
        ({"labels": {"tier": "gold"}}, "avoid.labels.tier"),
        ({"versions": {"comfyui": "<0.4"}}, "avoid.versions.comfyui"),
        ({"versions": {"odd": "<1"}}, "avoid.versions.odd"),
        ({"isolation": "none"}, "avoid.isolation"),
        ({"workers": ["v", "w"]}, "avoid.workers"),
    ],
)
def test_what_is_to_be_avoided_excludes_whoever_offers_it(avoid: dict[str, object], key: str) -> None:
    assert fits(lane({}, avoid), [OFFER], worker="w") is None
    assert [lack.key for lack in lacks(lane({}, avoid), [OFFER], worker="w")] == [key]


@pytest.mark.parametrize(
    "avoid",
    [
        {"service": "openai"},
        {"models": ["flux"]},
        {"labels": {"tier": "silver"}},
        {"labels": {"region": "eu"}},
        {"versions": {"comfyui": ">=0.4", "torch": ">=1"}},
        {"isolation": "container"},
        {"workers": ["v"]},
        {"shunned": ["w"]},
    ],
)
def test_what_is_not_offered_excludes_nobody(avoid: dict[str, object]) -> None:
    assert fits(lane({}, avoid), [OFFER], worker="w") == 0


def test_models_that_are_not_known_serve_no_job_that_needs_or_avoids_one() -> None:
    unknown = msgspec.structs.replace(OFFER, models_known=False)
    assert fits(lane({"models": ["sdxl"]}), [unknown], worker="w") is None
    assert fits(lane({}, {"models": ["flux"]}), [unknown], worker="w") is None
    assert fits(lane(), [unknown], worker="w") == 0


def test_an_unhealthy_offer_serves_nothing_and_says_so() -> None:
    sick = msgspec.structs.replace(OFFER, healthy=False)
    assert fits(lane(), [sick], worker="w") is None
    assert lacks(lane(), [sick], worker="w") == (("healthy", True, False),)
    assert fits(lane(), [sick, OFFER], worker="w") == 1


def test_kinds_match_exactly() -> None:
    near = msgspec.structs.replace(OFFER, kinds=("image", "image.generate.fast", "image.*"))
    assert fits(lane(), [near], worker="w") is None


def test_every_need_must_be_met_by_one_offer() -> None:
    halves = [
        msgspec.structs.replace(OFFER, models=("sdxl",)),
        msgspec.structs.replace(OFFER, models=("vae",)),
    ]
    assert fits(lane({"models": ["sdxl", "vae"]}), halves, worker="w") is None


def test_what_is_lacking_is_told_of_the_offer_that_comes_nearest() -> None:
    far = Offer(kinds=("chat.complete",), service="openai")
    near = msgspec.structs.replace(OFFER, labels={})
    wanted = lane({"service": "comfyui", "labels": {"tier": "gold"}})
    assert [lack.key for lack in lacks(wanted, [far, near], worker="w")] == ["labels.tier"]


def test_a_worker_without_offers_lacks_the_kind() -> None:
    assert lacks(lane(), [], worker="w") == (("kind", "image.generate", []),)
    assert fits(lane(), [], worker="w") is None


def test_an_amount_must_fit_both_the_workers_own_pool_and_the_offers() -> None:
    wanted = lane({"amounts": {"gpu_memory": 20}})
    assert fits(wanted, [OFFER], worker="w", pools={"gpu_memory": Pool(id="w", total=16)}) is None
    assert fits(wanted, [OFFER], worker="w", pools={"gpu_memory": Pool(id="w", total=20)}) == 0


def test_a_version_that_is_still_a_preview_counts() -> None:
    preview = msgspec.structs.replace(OFFER, versions={"comfyui": "0.4.0rc1"})
    assert fits(lane({"versions": {"comfyui": ">=0.3"}}), [preview], worker="w") == 0


def test_version_specifiers_that_cannot_be_read_are_found_before_a_job_is_stored() -> None:
    needs, avoid = Needs(versions={"a": ">=1", "b": "newest"}), Avoid(versions={"c": "=>2"})
    assert [field for field, _ in problems(needs, avoid)] == ["needs.versions.b", "avoid.versions.c"]
