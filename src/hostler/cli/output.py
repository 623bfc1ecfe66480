"""What commands print: sentences and tables for people, one JSON document or lines of them for programs."""

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, cast

import msgspec

from hostler.kernel.errors import HostlerError, SettingsError

OK, FAILED, USAGE = 0, 1, 2
"""Exit codes: success, a failed outcome, wrong usage."""

WIDE = 200
"""Columns of a table that is not printed to a terminal."""


class Out:
    """One command's output; with `json` nothing but JSON goes to stdout."""

    def __init__(self, *, json: bool) -> None:
        self.json = json

    def document(self, value: Any) -> None:
        """Print one JSON document on one line."""
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Print a sentence for people; programs do not see it."""
        if not self.json:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def answer(self, value: Any, text: str) -> None:
        """Print the outcome: JSON for programs, a sentence for people."""
        if self.json:
            self.document(value)
        else:
            self.say(text)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
        """Print rows for people; `empty` is said when there are none."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(shown(cell) for cell in row))
        if table.row_count:
            console().print(table)
        else:
            self.say(empty)


def console(*, stderr: bool = False) -> Any:
    """Return a rich console; one that is not a terminal is wide, so that nothing is cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else WIDE)


def shown(value: Any) -> str:
    """Return a cell as people read it, with rich's markup made harmless."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return printable(str(value)).replace("[", "\\[")


def printable(text: str) -> str:
    """Return text of others without control characters, so that it cannot drive the terminal."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def fail(error: HostlerError, *, json: bool) -> NoReturn:
    """Print an error as one sentence and end: 2 for wrong usage, 1 for all else."""
    code = USAGE if isinstance(error, SettingsError) else FAILED
    problems = cast("Sequence[str]", error.facts.get("problems") or ())
    if isinstance(error, SettingsError) and len(problems) > 1:
        sys.stderr.write(f"hostler: {len(problems)} settings are wrong:\n")
        sys.stderr.writelines(f"  {printable(problem)}\n" for problem in problems)
    else:
        sys.stderr.write(f"hostler: {printable(error.message)}\n")
    if json:
        body: dict[str, Any] = {"code": error.code, "message": error.message, "retry": error.retry}
        if problems:
            body["problems"] = problems
        try:
            Out(json=True).document({"error": body})
        except BrokenPipeError:
            hush()
    sys.exit(code)


def hush() -> None:
    """Send what is still to be printed nowhere: the reader has gone, and the interpreter shall not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
