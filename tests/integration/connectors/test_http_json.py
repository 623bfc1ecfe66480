"""A service that is connected by configuration alone: what its answers, refusals and lies become."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from hostler.connectors.catalogue import build
from hostler.contracts.failure import Failure, FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Failed, Finished, Step
from hostler.kernel.units import Json
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, steps_of, submitted

PAINT = Work(kind="lighthouse.paint", payload={"prompt": "a ship"})
EMBED = Work(kind="lighthouse.embed", payload={"text": "seven ä"})
Wired = Callable[..., Connector]


@pytest.fixture
def wired(lighthouse: Any, lighthouse_options: dict[str, Json]) -> Wired:
    """Build a connector to the lighthouse, its options changed at paths like `errors.otherwise`."""

    def make(**changes: Json) -> Connector:
        options = json.loads(json.dumps(lighthouse_options))
        for path, value in changes.items():
            *outer, last = path.split("__")
            table: Any = options
            for name in outer:
                table = table[int(name) if name.isdecimal() else name]
            table[last] = value
        return build("http-json", url=lighthouse.url, options=options)

    return make


async def end_of(connector: Connector, work: Work, **more: Any) -> Finished | Failed:
    async with connector:
        end: Step = (await steps_of(connector, call_of(work, **more)))[-1]
    assert isinstance(end, Finished | Failed)
    return end


async def failure_of(connector: Connector, work: Work, **more: Any) -> Failure:
    end = await end_of(connector, work, **more)
    assert isinstance(end, Failed), end
    return end.failure


def result_of(end: Step) -> Any:
    assert isinstance(end, Finished), end
    return json.loads(bytes(end.result))


@pytest.mark.row("002:281")
async def test_fields_are_mapped_there_and_back(wired: Wired) -> None:
    async with wired() as connector:
        *before, end = await steps_of(connector, call_of(PAINT, job="image.7"))
    assert isinstance(end, Finished)
    assert result_of(end) == {"of": "a ship", "key": "image.7"}
    shown = [step for step in before if isinstance(step, Progress)]
    assert shown[-1].fraction == 1.0
    assert {step.stage for step in shown} <= {f"layer {number}" for number in range(11)}


@pytest.mark.row("002:281")
async def test_one_request_is_the_work_where_the_answer_names_none(wired: Wired) -> None:
    assert result_of(await end_of(wired(), EMBED)) == [7, 0.5]


@pytest.mark.row("002:281")
async def test_events_of_both_formats_are_progress_and_the_last_one_is_the_end(wired: Wired) -> None:
    count = {
        "name": "lighthouse.count",
        "submit": {"path": "/count"},
        "stream": "ndjson",
        "reading": {
            "state": "/over",
            "states": {"true": "succeeded", "false": "running"},
            "result": "/n",
            "fraction": "/n",
            "whole": 3,
        },
    }
    async with wired(kinds=[count]) as connector:
        steps = await steps_of(connector, call_of(Work(kind="lighthouse.count", payload={"to": 3})))
    assert result_of(steps[-1]) == 3
    tell = Work(kind="lighthouse.tell", payload={"text": "ö", "words": 3})
    assert result_of(await end_of(wired(), tell)) == {"text": "ö0 ö1 ö2 "}


async def test_lines_that_end_before_the_work_says_so_are_no_success(lighthouse: Any, wired: Wired) -> None:
    await lighthouse.put("/moods", {"cut": True})
    count = {
        "name": "lighthouse.count",
        "submit": {"path": "/count"},
        "stream": "ndjson",
        "reading": {"state": "/over", "states": {"true": "succeeded", "false": "running"}},
    }
    failure = await failure_of(wired(kinds=[count]), Work(kind="lighthouse.count", payload={"to": 3}))
    assert failure.class_ is FailureClass.TRANSIENT
    assert "before the service said" in failure.message


@pytest.mark.row("002:149")
async def test_a_no_under_status_200_is_a_failure_with_its_class(lighthouse: Any, wired: Wired) -> None:
    await lighthouse.put("/moods", {"no": {"kind": "indecent", "text": "I would rather not"}})
    failure = await failure_of(wired(), EMBED)
    assert (failure.class_, failure.message) == (FailureClass.REFUSED, "I would rather not")
    assert failure.details["code"] == "indecent"
    await lighthouse.put("/moods", {"no": "out of sorts"})
    failure = await failure_of(wired(errors__otherwise="quota"), EMBED)
    assert (failure.class_, failure.message) == (FailureClass.QUOTA, "out of sorts")


@pytest.mark.parametrize("empty", [PAINT, EMBED])
async def test_a_success_without_a_result_is_none(lighthouse: Any, wired: Wired, empty: Work) -> None:
    await lighthouse.put("/moods", {"empty": True})
    failure = await failure_of(wired(work__poll=0.05), empty)
    assert failure.class_ is FailureClass.TRANSIENT
    assert "gives no result" in failure.message


async def test_a_result_that_does_not_fit_its_kind_is_no_success(wired: Wired) -> None:
    connector = wired(kinds__0__result={"type": "object", "required": ["signature"]})
    failure = await failure_of(connector, PAINT)
    assert failure.class_ is FailureClass.TRANSIENT
    assert "signature" in failure.message


async def test_a_word_that_is_in_no_table_is_never_guessed(lighthouse: Any, wired: Wired) -> None:
    await lighthouse.put("/moods", {"strange": True, "seconds": 0.05})
    failure = await failure_of(wired(work__poll=0.05), PAINT)
    assert failure.class_ is FailureClass.TRANSIENT
    assert "transcended" in failure.message


@pytest.mark.row("002:149")
async def test_a_failure_has_the_class_of_the_services_own_code(lighthouse: Any, wired: Wired) -> None:
    await lighthouse.put("/moods", {"trouble": {"kind": "no_ink", "text": "the pot is dry"}})
    failure = await failure_of(wired(), PAINT)
    assert (failure.class_, failure.message) == (FailureClass.OUT_OF_MEMORY, "the pot is dry")
    await lighthouse.put("/moods", {"trouble": {"kind": "unheard_of", "text": "oh"}})
    assert (await failure_of(wired(), PAINT, job="image.2")).class_ is FailureClass.TRANSIENT


async def test_a_refusal_has_the_class_of_its_code_then_of_its_status(lighthouse: Any, wired: Wired) -> None:
    untyped = {"kinds__0__payload": None}
    blank = Work(kind="lighthouse.paint", payload={"prompt": ""})
    assert (await failure_of(wired(**untyped), blank)).class_ is FailureClass.INVALID_INPUT
    uncoded = wired(**untyped, errors__codes={}, errors__statuses={"422": "quota"})
    assert (await failure_of(uncoded, blank)).class_ is FailureClass.QUOTA
    nowhere = wired(kinds__1__submit={"path": "/no/such/path"})
    assert (await failure_of(nowhere, EMBED)).class_ is FailureClass.CAPABILITY_MISMATCH
    await lighthouse.put("/moods", {"full": True})
    full = await failure_of(wired(), PAINT)
    assert (full.class_, full.retry_after) == (FailureClass.OVERLOADED, 7.0)


@pytest.mark.row("001:384")
async def test_a_resubmitted_job_brings_its_idempotency_key_and_runs_once(lighthouse: Any, wired: Wired) -> None:
    async with wired() as first, wired() as second:
        call = call_of(PAINT, job="image.9")
        assert (await submitted(first, call)).id == (await submitted(second, call)).id
    assert (await lighthouse.get("/counts"))["executed"] == 1


async def test_what_is_filled_in_cannot_change_the_request_around_it(lighthouse: Any, wired: Wired) -> None:
    path = wired(kinds__1__submit={"path": "/{payload/text}", "body": {"fence": "{fence}"}})
    failure = await failure_of(path, Work(kind="lighthouse.embed", payload={"text": "tickets/t-9/stop"}))
    assert (failure.details["status"], "nothing here" in failure.message) == (404, True)
    assert (await lighthouse.get("/counts"))["executed"] == 0
    header = wired(kinds__1__submit={"path": "/embed", "headers": {"X-Text": "{payload/text}"}})
    failure = await failure_of(header, Work(kind="lighthouse.embed", payload={"text": "a\r\nX-Evil: 1"}))
    assert failure.class_ is FailureClass.INVALID_INPUT
    missing = await failure_of(header, Work(kind="lighthouse.embed", payload={}))
    assert (missing.class_, "/text" in missing.message) == (FailureClass.INVALID_INPUT, True)


async def test_the_endpoint_says_how_it_is_and_what_it_has(lighthouse: Any, wired: Wired) -> None:
    async with wired() as connector:
        probe, found = await connector.probe(), await connector.capabilities()
        await lighthouse.put("/moods", {"sick": True})
        sick = await connector.probe()
    assert (probe.state, probe.version, probe.message) == (EndpointState.READY, "7", "the service says lit")
    assert (found.models, found.models_known, found.versions) == (("oil", "ink"), True, {"lighthouse": "7"})
    assert found.pools["slots"].total == 3
    assert sick.state is EndpointState.UNHEALTHY
    assert connector.service == "lighthouse"
    assert {spec.service for spec in connector.kinds()} == {"lighthouse"}


async def test_an_html_page_is_no_sign_of_health(wired: Wired) -> None:
    page = {"path": "/no-such-page", "statuses": {"500": "loading"}}
    async with wired(health=page) as connector:
        assert (await connector.probe()).state is EndpointState.UNHEALTHY


async def test_a_status_may_be_told_to_mean_a_state(lighthouse: Any, wired: Wired) -> None:
    await lighthouse.put("/moods", {"sick": True})
    async with wired(health={"path": "/healthz", "statuses": {"500": "loading"}}) as connector:
        assert (await connector.probe()).state is EndpointState.LOADING
