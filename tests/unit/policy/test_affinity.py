"""Which jobs are of one session: the same key for all turns of a conversation, another one for another."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from hostler.contracts.job import JobRequest
from hostler.contracts.queue import KindSpec
from hostler.policy.affinity import LABEL, affinity_key

CHAT = KindSpec(name="chat.complete", affinity=("/messages",))
SYSTEM = {"role": "system", "content": "be brief"}
HELLO, ANSWER, MORE = ({"role": role, "content": role} for role in ("user", "assistant", "user"))


def key(payload: Any, kind: KindSpec = CHAT, **request: Any) -> str | None:
    sealed = payload if isinstance(payload, Raw) else Raw(msgspec.json.encode(payload))
    return affinity_key(JobRequest(kind=kind.name, payload=sealed, **request), kind)


def chat(*messages: dict[str, str], **more: Any) -> str | None:
    return key({"messages": messages, **more})


@pytest.mark.parametrize("before", [(), (SYSTEM,), (SYSTEM, SYSTEM)])
def test_all_turns_of_a_conversation_are_of_one_session(before: tuple[dict[str, str], ...]) -> None:
    first = chat(*before, HELLO)
    assert first is not None
    assert chat(*before, HELLO, ANSWER, MORE) == first
    assert chat(*before, HELLO, ANSWER, MORE, ANSWER, MORE, temperature=0.5) == first


def test_conversations_that_begin_differently_are_not_even_behind_the_same_system_message() -> None:
    other = {"role": "user", "content": "something else"}
    begun = [chat(SYSTEM, HELLO), chat(SYSTEM, other), chat(HELLO), chat(other), chat(SYSTEM, ANSWER, HELLO)]
    assert len(set(begun)) == len(begun)


def test_blanks_and_the_order_of_keys_do_not_count() -> None:
    written = Raw(b' { "messages" : [ { "content" : "user", "role" : "user" } ] } ')
    assert key(written) == chat(HELLO)


@pytest.mark.parametrize("messages", [["a", "b"], [1, {"role": "user"}], "text", {"role": "user"}, [ANSWER], []])
def test_what_is_no_conversation_counts_whole(messages: Any) -> None:
    assert key({"messages": messages}) not in (None, key({"messages": [messages]}))


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"messages": None},
        {"$blob": {"sha256": "0" * 64, "size": 1}},
        [HELLO],
        "messages",
        None,
        Raw(b'{"messages": [{]}'),
        Raw(b"\xff"),
        Raw(b'{"messages": ' + b"[" * 100_000),
        Raw(b'{"messages": [{"role": "user", "content": ' + b"[" * 5_000 + b"]" * 5_000 + b"}]}"),
    ],
)
def test_a_payload_that_names_no_session_or_cannot_be_read_is_of_none(payload: Any) -> None:
    assert key(payload) is None


def test_pointers_lead_into_objects_and_lists_and_all_must_lead_somewhere() -> None:
    kind = KindSpec(name="draw", affinity=("/a~1b/1/~0", "/n"))
    payload = {"a/b": [0, {"~": "here"}], "n": 1.5}
    found = key(payload, kind)
    assert found not in (None, key({**payload, "n": 2}, kind))
    assert key({**payload, "rest": 1}, kind) == found
    for less in ({"n": 1.5}, {"a/b": [{"~": 1}], "n": 1}, {"a/b": {"1": {"~": "here"}}}):
        assert key(less, kind) is None


@pytest.mark.parametrize("kind", [KindSpec(name="draw"), KindSpec(name="draw", affinity=())])
def test_a_kind_that_declares_nothing_has_sessions_by_label_only(kind: KindSpec) -> None:
    assert key({"messages": [HELLO]}, kind) is None
    assert key(None, kind, labels={LABEL: "s"}) is not None


def test_a_label_goes_before_what_the_payload_says_and_joins_kinds() -> None:
    mine = chat(HELLO)
    labelled = key({"messages": [HELLO]}, labels={LABEL: "s"})
    assert labelled != mine
    assert labelled == key({}, KindSpec(name="draw"), labels={LABEL: "s"}) != key({}, labels={LABEL: "t"})


def test_by_payload_a_session_is_of_one_kind_and_of_one_tenant() -> None:
    other = msgspec.structs.replace(CHAT, name="chat.other")
    payload = {"messages": [HELLO]}
    assert len({key(payload), key(payload, other), key(payload, tenant="b")}) == 3


@pytest.mark.parametrize("affinity", [["messages"], [""], ["/a"] * 9, ["/" + "a" * 300]])
def test_a_pointer_that_is_none_is_refused_where_it_is_declared(affinity: list[str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "draw", "affinity": affinity}, KindSpec)
