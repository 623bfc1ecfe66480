"""Streams are read the same wherever the network cuts them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.transports.streams import LineSplitter, SseEvent, SseParser, read_ndjson

STREAM = (
    '\ufeffdata: first\r\n\r\n: a comment\n\nid: 7\nevent: progress\ndata: {"a":\rdata: "ü€😀"}\r\r'
    "retry: 10\ndata\n\ndata:no space\nid: bad\0id\n\nevent: lonely\n\ndata: unfinished"
).encode()
EVENTS = [
    SseEvent(data="first"),
    SseEvent(data='{"a":\n"ü€😀"}', event="progress", id="7"),
    SseEvent(data="", id="7"),
    SseEvent(data="no space", id="7"),
]


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(position % (len(data) + 1) for position in at), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(st.integers(min_value=0, max_value=500), max_size=30))
def test_events_do_not_depend_on_where_the_chunks_end(at: list[int]) -> None:
    parser = SseParser()
    assert [event for chunk in cut(STREAM, at) for event in parser.feed(chunk)] == EVENTS


def test_events_are_whole_even_byte_by_byte() -> None:
    parser = SseParser()
    assert [event for byte in STREAM for event in parser.feed(bytes([byte]))] == EVENTS


@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"))), st.lists(st.integers(0, 500))
)
def test_lines_do_not_depend_on_where_the_chunks_end(lines: list[str], at: list[int]) -> None:
    splitter = LineSplitter()
    data = "".join(f"{line}\n" for line in lines).encode()
    assert [line for chunk in cut(data, at) for line in splitter.feed(chunk)] == lines


def test_an_endless_line_is_a_fault_and_not_a_full_memory() -> None:
    splitter = LineSplitter(limit=1000)
    for _ in range(10):
        splitter.feed(b"x" * 100)
    with pytest.raises(ServiceFaultError, match="over 1000 bytes"):
        splitter.feed(b"x")


def test_an_endless_event_is_a_fault_too() -> None:
    parser = SseParser(limit=1000)
    for _ in range(100):
        parser.feed(b"data: xxxxxxxxx\n")
    with pytest.raises(ServiceFaultError, match="over 1000 bytes"):
        parser.feed(b"data: xxxxxxxxx\n")


async def test_ndjson_gives_every_line_also_the_last_without_an_end() -> None:
    async def chunks():
        yield b'{"a":1}\n\n{"b"'
        yield b":2}\n"
        yield b'{"c":3}'

    assert [line async for line in read_ndjson(chunks())] == [b'{"a":1}', b'{"b":2}', b'{"c":3}']
