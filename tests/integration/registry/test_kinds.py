"""The registry of kinds and queues on a real engine."""

from typing import Any, cast

import pytest
from msgspec import Raw

from hostler.contracts.queue import KindSpec, Limits, QueueSpec
from hostler.kernel.errors import InvalidError, PayloadError, PlannedKindError, UnknownKindError, UnknownQueueError
from hostler.registry.kinds import Kinds
from hostler.registry.schemas import Schemas
from hostler.valkeyio.engine import Engine
from hostler.valkeyio.keys import registry_key


@pytest.fixture
def kinds(engine: Engine) -> Kinds:
    return Kinds(engine)


@pytest.mark.row("003:21")
async def test_a_fresh_declaration_of_another_process_is_seen_at_once(engine: Engine, kinds: Kinds) -> None:
    with pytest.raises(UnknownKindError):
        await kinds.kind("image.generate")
    await Kinds(engine).declare_kind(KindSpec(name="image.generate", queue="images"))
    assert (await kinds.kind("image.generate")).queue == "images"
    assert (await kinds.queue("images")).name == "images"


async def test_a_changed_declaration_is_seen_within_a_second(engine: Engine) -> None:
    time = [0.0]
    kinds, other = Kinds(engine, monotonic=lambda: time[0]), Kinds(engine)
    await kinds.declare_kind(KindSpec(name="draw", about="first"))
    await other.declare_kind(KindSpec(name="draw", about="second"))
    assert (await kinds.kind("draw")).about == "first"
    time[0] = 1.1
    assert (await kinds.kind("draw")).about == "second"


async def test_an_unknown_kind_is_refused_with_the_nearest_names(kinds: Kinds) -> None:
    for name in ("image.generate", "image.upscale", "chat.complete"):
        await kinds.declare_kind(KindSpec(name=name))
    with pytest.raises(UnknownKindError) as refused:
        await kinds.kind("image.genrate")
    nearest = refused.value.facts["nearest"]
    assert isinstance(nearest, tuple)
    assert nearest[0] == "image.generate"
    assert "image.generate" in refused.value.message


async def test_a_planned_kind_is_refused_with_that_word_until_it_is_served(kinds: Kinds) -> None:
    await kinds.declare_kind(KindSpec(name="train.run", planned=True))
    with pytest.raises(PlannedKindError, match="planned"):
        await kinds.kind("train.run")
    await kinds.declare_kind(KindSpec(name="train.run"))
    assert (await kinds.kind("train.run")).planned is False


async def test_the_queue_default_is_always_there_and_may_be_declared_anew(kinds: Kinds) -> None:
    assert [row.queue.name for row in await kinds.rows()] == ["default"]
    await kinds.declare_queue(QueueSpec(name="default", limits=Limits(depth=3)))
    assert (await kinds.queue("default")).limits.depth == 3
    with pytest.raises(UnknownQueueError):
        await kinds.queue("nowhere")


async def test_declaring_the_same_again_raises_no_version_and_is_no_event(engine: Engine, kinds: Kinds) -> None:
    spec = KindSpec(name="draw", queue="images")
    await kinds.declare_kind(spec)
    before = (await engine.command("GET", registry_key("v")), await engine.command("XLEN", registry_key("ev")))
    await kinds.declare_kind(spec)
    after = (await engine.command("GET", registry_key("v")), await engine.command("XLEN", registry_key("ev")))
    assert before == after
    assert before[1] == 1


async def test_what_a_fail_over_lost_is_not_taken_for_what_is_declared_after_it(engine: Engine, kinds: Kinds) -> None:
    await kinds.declare_kind(KindSpec(name="draw", about="kept"))
    kept = [await engine.command(verb, registry_key(key)) for verb, key in (("DUMP", "kinds"), ("GET", "v"))]
    await kinds.declare_kind(KindSpec(name="draw", about="lost"))
    await engine.command("RESTORE", registry_key("kinds"), 0, kept[0], "REPLACE")
    await engine.command("SET", registry_key("v"), kept[1])
    await Kinds(engine).declare_kind(KindSpec(name="draw", about="later"))
    assert (await kinds.read()).kinds["draw"].about == "later"


async def test_a_declaration_never_takes_the_place_of_a_queue_that_has_a_row(kinds: Kinds) -> None:
    await kinds.declare_queue(QueueSpec(name="images", about="mine"))
    await kinds.declare_kind(KindSpec(name="draw", queue="images"))
    assert (await kinds.queue("images")).about == "mine"


async def test_no_queue_takes_the_registrys_own_place(kinds: Kinds) -> None:
    with pytest.raises(InvalidError):
        await kinds.declare_queue(QueueSpec(name="reg"))
    with pytest.raises(InvalidError):
        await kinds.declare_kind(KindSpec(name="draw", queue="reg"))


@pytest.mark.row("003:41")
async def test_a_type_that_is_no_schema_or_reaches_outside_is_refused_when_declared(kinds: Kinds) -> None:
    for schema in ({"type": "strin"}, {"$ref": "http://127.0.0.1:1/type.json"}, {"pattern": "("}):
        with pytest.raises(InvalidError) as refused:
            await kinds.declare_kind(KindSpec(name="draw", payload=schema))
        assert refused.value.facts["field"] == "kinds.draw.payload"
    with pytest.raises(UnknownKindError):
        await kinds.kind("draw")


def test_a_payload_is_judged_with_path_and_words() -> None:
    schemas = Schemas()
    schema = {
        "type": "object",
        "required": ["prompt"],
        "properties": {"sizes": {"type": "array", "items": {"type": "integer"}}},
    }
    schemas.judge(schema, Raw(b'{"prompt": "x", "sizes": [1, 2]}'))
    with pytest.raises(PayloadError) as refused:
        schemas.judge(schema, Raw(b'{"sizes": [1, "two"]}'))
    problems = cast("list[dict[str, str]]", refused.value.facts["problems"])
    assert {problem["path"] for problem in problems} == {"payload", "payload.sizes.1"}
    with pytest.raises(PayloadError):
        schemas.judge(None, Raw(b'{"prompt": '))


def test_a_name_that_a_payload_does_not_have_is_answered_with_those_that_it_has() -> None:
    lamp: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {"colour": {}}}
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"prompt": {}, "lamp": {"$ref": "#/$defs/Lamp"}},
        "$defs": {"Lamp": lamp},
    }
    with pytest.raises(PayloadError, match=r"'promt' was unexpected.*; known: prompt, lamp"):
        Schemas().judge(schema, Raw(b'{"promt": "x"}'))
    with pytest.raises(PayloadError, match=r"^payload.lamp: .*; known: colour"):
        Schemas().judge(schema, Raw(b'{"lamp": {"color": "red"}}'))


def test_a_blobs_content_is_not_judged_by_its_reference() -> None:
    reference = Raw(b'{"$blob": {"sha256": "' + b"a" * 64 + b'", "size": 300000}}')
    Schemas().judge({"type": "object", "required": ["prompt"]}, reference)


def test_a_pattern_written_for_python_means_the_same_in_a_type() -> None:
    schemas = Schemas()
    schema = {"type": "string", "pattern": r"^[a-z]+\Z"}
    schemas.judge(schema, Raw(b'"abc"'))
    with pytest.raises(PayloadError):
        schemas.judge(schema, Raw(b'"abc\\n"'))


def test_a_schema_that_was_changed_in_place_is_looked_at_again() -> None:
    schemas, schema = Schemas(), {"type": "object"}
    schemas.check(schema, field="payload")
    schema["type"] = "nonsense"
    with pytest.raises(InvalidError):
        schemas.check(schema, field="payload")
