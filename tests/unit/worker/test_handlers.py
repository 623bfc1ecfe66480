"""Handlers: what the decorator accepts, what a set loads, how payloads and results are judged."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import pytest
from msgspec import Raw, Struct

import hostler
from hostler.contracts.queue import RetryPolicy
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import PayloadError, SettingsError
from hostler.worker.call import CallFacts
from hostler.worker.handlers import HandlerSet, handler, handler_of
from hostler.worker.shapes import Shape


class Merge(Struct, frozen=True, kw_only=True):
    left: str
    right: str


class Merged(Struct, frozen=True, kw_only=True):
    text: str


@dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    name: str


@handler("nlp.merge", payload=Merge, result=Merged, queue="nlp", retry=RetryPolicy(attempts=2), labels={"tier": "a"})
async def merge(call: hostler.Call[Merge]) -> Merged:
    return Merged(text=call.payload.left + call.payload.right)


@handler("cpu.count", run="process")
def count(call: hostler.Call[Any]) -> int:
    return len(call.payload)


@handler("io.read", timeouts=Timeouts(run=3.0))
def read(call: hostler.Call[Any]) -> Any:
    return call.payload


def test_a_function_stays_a_function_and_knows_its_kind() -> None:
    mark = handler_of(merge)
    assert mark is not None
    assert mark.function is merge
    assert mark.spec.name == "nlp.merge"
    assert mark.spec.queue == "nlp"
    assert mark.spec.retry.attempts == 2
    assert mark.spec.service is None


def test_a_coroutine_runs_on_the_loop_a_plain_function_in_a_thread_and_a_process_handler_apart() -> None:
    assert [mark.mode for mark in HandlerSet.of(merge, read, count)] == ["loop", "thread", "process"]


def test_the_kinds_row_carries_the_json_schema_of_payload_and_result() -> None:
    mark = handler_of(merge)
    assert mark is not None
    assert mark.spec.payload is not None
    assert mark.spec.payload["$defs"]["Merge"]["required"] == ["left", "right"]
    assert mark.spec.result is not None
    assert Shape(Model).schema() == Model.model_json_schema()
    assert Shape(None).schema() is None


def test_the_idle_timeout_of_a_handler_is_as_long_as_its_run_unless_set() -> None:
    assert [(mark.spec.timeouts.idle, mark.spec.timeouts.run) for mark in HandlerSet.of(read, count)] == [
        (3.0, 3.0),
        (900.0, 900.0),
    ]


@pytest.mark.parametrize(
    ("kind", "sealed", "value"),
    [
        (Merge, b'{"left":"a","right":"b"}', Merge(left="a", right="b")),
        (Point, b'{"x":3}', Point(3)),
        (Model, b'{"name":"n"}', Model(name="n")),
        (list[int], b"[1,2]", [1, 2]),
        (None, b'{"any":[null]}', {"any": [None]}),
    ],
)
def test_every_supported_type_goes_to_json_and_back(kind: Any, sealed: bytes, value: object) -> None:
    shape: Shape[Any] = Shape(kind)
    assert shape.decode(Raw(sealed)) == value
    assert bytes(shape.encode(value)) == sealed


@pytest.mark.parametrize(
    ("kind", "sealed"), [(Merge, b'{"left":1,"right":"b"}'), (Model, b'{"name":1}'), (Point, b"[]"), (None, b"{nope")]
)
def test_a_payload_that_does_not_fit_is_refused_in_the_librarys_words(kind: Any, sealed: bytes) -> None:
    with pytest.raises(PayloadError):
        Shape(kind).decode(Raw(sealed))


def test_a_result_of_the_wrong_type_is_refused_even_inside_a_struct() -> None:
    with pytest.raises(PayloadError):
        Shape(Merged).encode({"text": 3})
    with pytest.raises(PayloadError):
        Shape(Merged).encode(Merged(text=3))  # pyright: ignore[reportArgumentType] - the very mistake under test
    with pytest.raises(PayloadError):
        Shape(None).encode(object())


def test_a_handler_that_cannot_run_as_asked_is_refused_where_it_is_written() -> None:
    def local(call: hostler.Call[Any]) -> None: ...
    async def coroutine(call: hostler.Call[Any]) -> None: ...

    with pytest.raises(SettingsError, match="module level"):
        handler("a.b", run="process")(local)
    with pytest.raises(SettingsError, match="block the loop"):
        handler("a.b", run="loop")(local)
    with pytest.raises(SettingsError, match="plain function"):
        handler("a.b", run="thread")(coroutine)
    with pytest.raises(SettingsError, match="name"):
        handler("Not A Name")
    with pytest.raises(SettingsError, match="slots"):
        handler("a.b", slots=3)  # pyright: ignore[reportCallIssue] - an unknown option is the case under test


def test_offers_group_kinds_by_what_they_give() -> None:
    offers = HandlerSet.of(merge, read, count).offers({"zone": "x"})
    assert [(offer.kinds, offer.labels, offer.isolation) for offer in offers] == [
        (("nlp.merge",), {"zone": "x", "tier": "a"}, ("none",)),
        (("io.read",), {"zone": "x"}, ("none",)),
        (("cpu.count",), {"zone": "x"}, ("none", "process")),
    ]


GOOD = "import hostler\n@hostler.handler('{0}')\nasync def f(call): return 1\n"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("h_good", "h_other", "h_broken", "h_empty"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "h_good.py").write_text(GOOD.format("x.good"))
    (tmp_path / "h_other.py").write_text(GOOD.format("x.good"))
    (tmp_path / "h_broken.py").write_text("import no_such_module_anywhere\n")
    (tmp_path / "h_empty.py").write_text("")
    return tmp_path


@pytest.mark.usefixtures("modules")
def test_a_module_that_does_not_import_is_listed_with_its_reason_and_the_others_work() -> None:
    found = HandlerSet.load(["h_good", "h_broken", "h_empty", "h_absent"])
    assert [spec.name for spec in found.kinds()] == ["x.good"]
    assert [each.module for each in found.broken] == ["h_broken", "h_empty", "h_absent"]
    assert "no_such_module_anywhere" in found.broken[0].reason


@pytest.mark.usefixtures("modules")
def test_nothing_left_is_an_error_and_strict_forbids_any_broken_module() -> None:
    with pytest.raises(SettingsError, match="no_such_module_anywhere"):
        HandlerSet.load(["h_broken"])
    with pytest.raises(SettingsError):
        HandlerSet.load(["h_good", "h_broken"], strict=True)
    assert len(HandlerSet.load([])) == 0


@pytest.mark.usefixtures("modules")
def test_two_handlers_of_one_kind_are_refused_with_both_names() -> None:
    with pytest.raises(SettingsError, match=r"h_good\.f and h_other\.f"):
        HandlerSet.load(["h_good", "h_other"])


async def test_a_handler_can_be_tried_by_calling_it() -> None:
    class Nowhere:
        cancelled = False

        def progress(self, progress: object) -> None: ...
        def checkpoint(self, value: Raw) -> None: ...

    call = hostler.Call(
        Merge(left="a", right="b"), CallFacts(job_id="q.1", kind="nlp.merge", attempt=1, fence=1), Nowhere()
    )
    assert await merge(call) == Merged(text="ab")


def test_the_type_of_the_call_is_the_type_of_the_payload_unless_another_is_given() -> None:
    @hostler.handler("text.shout")
    async def shout(call: hostler.Call[str]) -> str:
        return call.payload.upper()

    @hostler.handler("text.any")
    async def anything(call: hostler.Call[Any]) -> None:
        return None

    @hostler.handler("text.bare")
    async def bare(call):  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType] - as users write
        return None

    schemas = [mark.spec.payload for mark in map(handler_of, (shout, anything, bare)) if mark]
    assert schemas == [{"type": "string"}, None, None]
