"""The function library's text: headers become names, positions come from the layout, and bad Lua is refused."""

import re

import pytest

from hostler.kernel.errors import InternalError
from hostler.policy.lifecycle import JOB_MOVES
from hostler.valkeyio import layout
from hostler.valkeyio.keys import KEYS, meta_key, owner_of, prefix, wake_channel
from hostler.valkeyio.library_text import Build, assemble, lint, parse, read_files, shipped

HEADER = "-- Do something.\n-- keys  meta\n-- args  worker:text limit:int *rest:blob\n-- reply 1\n"


def test_the_shipped_library_has_a_verb_for_every_file_and_no_other_functions() -> None:
    text = shipped()
    registered = set(re.findall(r"function_name='hostler1_(\w+)'", text.text))
    assert registered == {*text.verbs, "version"}
    assert {"submit", "claim", "settle", "renew", "progress", "tick", "configure"} <= registered


def test_a_header_becomes_named_locals() -> None:
    verb = parse("do", HEADER + "return 1\n")
    assert [(one.name, one.type, one.rest) for one in verb.arguments] == [
        ("worker", "text", False),
        ("limit", "int", False),
        ("rest", "blob", True),
    ]
    text = assemble({"do": HEADER + "return limit\n"}).text
    assert "local worker = argv[1]" in text
    assert "local limit = tonumber(argv[2])" in text
    assert "local rest = tail(argv, 3)" in text


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("-- Do.\n-- reply 1\n", "lacks keys"),
        ("-- Do.\n-- keys  meta other\n-- reply 1\n", "the one declared key is meta"),
        ("-- Do.\n-- keys  meta\n-- args  worker\n-- reply 1\n", "is not name:type"),
        ("-- Do.\n-- keys  meta\n-- args  *a:blob b:int\n-- reply 1\n", "nothing may follow"),
        ("-- Do.\n-- keys  meta\n-- flags noop\n-- reply 1\n", "unknown flags"),
    ],
)
def test_a_header_that_is_not_whole_is_refused(header: str, problem: str) -> None:
    with pytest.raises(InternalError, match=re.escape(problem)):
        parse("do", header)


@pytest.mark.parametrize(
    "line",
    [
        "local text = tostring(n)",
        "local a = cjson.encode(b)",
        "local call = redis.call",
        "redis.call('GET', 'x')",
        "local ok = redis.pcall('GET', 'x')",
        "local key = 'a' .. q.now",
    ],
)
def test_lua_that_is_known_to_go_wrong_is_refused(line: str) -> None:
    with pytest.raises(InternalError):
        lint(line + "\n", "x.lua")


def test_a_position_that_the_layout_does_not_have_is_refused() -> None:
    with pytest.raises(InternalError, match="not in the layout"):
        assemble({"do": HEADER + "return r[F.no_such_field]\n"})
    with pytest.raises(InternalError, match="not a field of meta"):
        assemble({"do": HEADER + "return q.m.no_such_field\n"})


def test_the_guard_of_moves_is_the_life_table() -> None:
    codes = {int(code) for code in re.findall(r"\[(\d+)\] = true", shipped().text.partition("\nlocal STATES")[0])}
    states = {None: 0} | {state: number for number, state in enumerate(layout.STATES, 1)}
    wanted = {
        (layout.VERBS.index(verb) + 1) * 100 + states[start] * 10 + states[end]
        for (start, verb), ends in JOB_MOVES.items()
        for end in ends
    }
    assert codes == wanted


def test_the_hash_changes_with_the_text_and_a_test_build_is_another_library() -> None:
    files = read_files()
    assert shipped().sha256 == assemble(files).sha256
    assert assemble({**files, "tick": files["tick"] + "-- more\n"}).sha256 != shipped().sha256
    assert shipped(Build(clock="key")).sha256 != shipped().sha256
    assert "probe" not in shipped().text


def test_every_file_is_short() -> None:
    assert {name: text.count("\n") for name, text in read_files().items() if text.count("\n") > 120} == {}


@pytest.mark.parametrize("row", KEYS, ids=lambda row: row.shape)
def test_every_row_owns_its_own_keys(row: object) -> None:
    shape = getattr(row, "shape")  # noqa: B009 - pytest hands over objects
    key = re.sub(r"<(\w+)>", lambda part: {"queue": "q-1", "class": "ab12"}.get(part[1], "17"), shape)
    assert owner_of(key) == row
    assert owner_of(key.encode()) == row


def test_a_stranger_owns_nothing() -> None:
    assert owner_of("h:{q}:stranger") is None
    assert owner_of("other") is None


def test_a_queues_keys_lie_in_one_slot_and_the_registrys_name_is_taken() -> None:
    assert meta_key("q") == "h:{q}:meta"
    assert wake_channel("q", "w") == "h:{q}:w:w"
    with pytest.raises(ValueError, match="reg"):
        prefix("reg")
