"""House rules that a machine can judge: sizes, shapes, reasons, names."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import hostler
from hostler.contracts.event import Event
from hostler.contracts.job import JobState
from hostler.kernel.errors import all_errors
from hostler.policy.lifecycle import ENDPOINT_MOVES, JOB_MOVES, TERMINAL, WORKER_MOVES, Verb, advance

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LUA = sorted((ROOT / "src").rglob("*.lua"))


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.row("000:29", "000:93")
def test_no_file_is_longer_than_one_person_can_hold() -> None:
    long = [f"{p.relative_to(ROOT)}: {lines_of(p)}" for p in SOURCES + TESTS if lines_of(p) > 500]
    long += [f"{p.relative_to(ROOT)}: {lines_of(p)}" for p in LUA if lines_of(p) > 120]
    assert long == []


@pytest.mark.row("000:29")
def test_no_function_is_longer_than_sixty_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in SOURCES
        for node in functions_of(path)
        if (node.end_lineno or 0) - node.lineno + 1 > 60
    ]
    assert long == []


@pytest.mark.row("000:29", "001:259")
def test_no_class_has_more_than_twenty_methods() -> None:
    large: list[str] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
                if len(methods) > 20:
                    large.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} ({len(methods)})")
    assert large == []


def test_no_port_has_more_than_fifteen_verbs() -> None:
    for path in sorted((ROOT / "src/hostler/ports").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                verbs = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
                assert len([verb for verb in verbs if not verb.name.startswith("__")]) < 16, node.name


def test_every_promise_of_a_port_is_written_down() -> None:
    silent = [
        f"{path.name}:{node.name}"
        for path in sorted((ROOT / "src/hostler/ports").glob("*.py"))
        for node in functions_of(path)
        if not node.name.startswith("__") and not ast.get_docstring(node)
    ]
    assert silent == []


def structs() -> Iterator[type[msgspec.Struct]]:
    for info in pkgutil.walk_packages(hostler.__path__, "hostler."):
        if ".contracts." not in info.name and ".kernel." not in info.name:
            continue
        module = importlib.import_module(info.name)
        for _, value in inspect.getmembers(module, inspect.isclass):
            if issubclass(value, msgspec.Struct) and value.__module__ == info.name:
                yield value


@pytest.mark.row("000:29")
def test_every_message_shape_is_frozen_and_takes_keywords_only() -> None:
    loose: list[str] = []
    for shape in structs():
        parameters = inspect.signature(shape).parameters.values()
        if not shape.__struct_config__.frozen or any(p.kind is not p.KEYWORD_ONLY for p in parameters):
            loose.append(shape.__name__)
    assert loose == []


def test_every_suppression_names_its_rule_and_gives_a_reason() -> None:
    bare: list[str] = []
    for path in SOURCES + TESTS:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"#\s*noqa(?!: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)* - \S)", line) or re.search(
                r"#\s*(pyright|type): ?ignore(?!\[[\w-]+(, ?[\w-]+)*\] - \S)", line
            ):
                bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert [line for line in bare if "test_house_rules" not in line] == []


def test_every_broad_except_gives_a_reason() -> None:
    bare: list[str] = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if (
                re.search(r"except( Exception| BaseException)?( as \w+)?:|suppress\(Exception", line)
                and "#" not in line
            ):
                bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert bare == []


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.code for error in all_errors() if error.code != "internal"]
    assert len(codes) == len(set(codes))


@pytest.mark.row("003:131")
def test_a_terminal_job_moves_only_by_replay_of_the_dead() -> None:
    moves = {(state, verb) for (state, verb) in JOB_MOVES if state in TERMINAL}
    assert moves == {(JobState.DEAD, Verb.REPLAY)}


def test_every_state_can_be_reached_and_every_pair_outside_the_table_is_refused() -> None:
    reached = {target for targets in JOB_MOVES.values() for target in targets}
    assert reached == set(JobState)
    for state in (None, *JobState):
        for verb in Verb:
            assert bool(advance(state, verb)) == ((state, verb) in JOB_MOVES)


def test_every_state_of_workers_and_endpoints_can_be_reached() -> None:
    for moves in (WORKER_MOVES, ENDPOINT_MOVES):
        states = {after for _, after in moves}
        assert states == set(type(next(iter(states))))


def test_events_of_a_job_are_named_by_the_verbs_of_its_life() -> None:
    assert "type" in Event.__struct_fields__
    assert {verb.value for verb in Verb} >= {verb.value for _, verb in JOB_MOVES}


def test_nothing_ever_unpickles() -> None:
    users = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if (
            isinstance(node, ast.Import)
            and any(alias.name.split(".")[0] in {"pickle", "cloudpickle"} for alias in node.names)
        )
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"pickle", "cloudpickle"})
    ]
    assert users == []


def test_tests_wait_for_facts_and_never_sleep() -> None:
    sleepers = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in TESTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\b(time|asyncio|anyio)\.sleep\((?!0\))", line)
        and "# not waiting: " not in line
        and "test_house_rules" not in path.name
    ]
    assert sleepers == []
