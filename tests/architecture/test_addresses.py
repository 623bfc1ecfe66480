"""Where services are is said by configuration, discovery or one table of defaults, and nowhere else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostler.kernel.spec import CONVENTIONAL_PORTS

ROOM = Path(__file__).resolve().parents[2] / "src/hostler"
TABLES = {"kernel/spec.py", "kernel/settings.py"}
"""The ports of services, and the defaults of settings."""
WELL_KNOWN = {6379, 7700, *CONVENTIONAL_PORTS.values()}
ADDRESS = re.compile(
    r"(?:\w+://(?:[\w.-]+|\[[\w:]+\])(?::\d+)?|(?:localhost|\d+\.\d+\.\d+\.\d+|\[[\w:]+\]|[a-z][\w-]*(?:\.[\w-]+)+):[1-9]\d*)(?:/\S*)?"
)
SCHEMES = re.compile(r"(?:https?|wss?|grpcs?|rediss?|tcp)://|[^:/]+:\d")


def constants(path: Path) -> Iterator[ast.Constant]:
    """Yield every constant but documentation."""
    tree = ast.parse(path.read_text())
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documentation:
            yield node


def is_address(value: object) -> bool:
    """Whether a constant names one place; half an address, whose port is filled in, does not."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value in WELL_KNOWN
    return isinstance(value, str) and bool(ADDRESS.fullmatch(value) and SCHEMES.match(value))


@pytest.mark.row("002:139")
def test_no_address_or_port_of_a_service_stands_outside_the_tables_of_defaults() -> None:
    places = [
        f"{path.relative_to(ROOM)}:{node.lineno}: {node.value!r}"
        for path in sorted(ROOM.rglob("*.py"))
        if str(path.relative_to(ROOM)) not in TABLES and "testing" not in path.parts
        for node in constants(path)
        if is_address(node.value)
    ]
    assert places == []


@pytest.mark.row("002:139")
@pytest.mark.parametrize(
    "value", ["http://127.0.0.1:8188", "https://api.somebody.com/v1", "localhost:8001", "redis://host:6379", 8299]
)
def test_an_address_is_recognised(value: object) -> None:
    assert is_address(value)


@pytest.mark.parametrize("value", ["http://127.0.0.1:", "http://", "127.0.0.1:0", "urn:hostler:error:", "a:b", 8, True])
def test_what_is_none_is_left_alone(value: object) -> None:
    assert not is_address(value)
