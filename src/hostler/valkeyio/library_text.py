"""How the text of the function library is assembled from its files: headers, constants, lint."""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final, Literal

from msgspec import Struct

from hostler.kernel.errors import InternalError
from hostler.policy.lifecycle import JOB_MOVES
from hostler.policy.suspicion import LATE, PASSED_MOST, SOON
from hostler.valkeyio import layout
from hostler.valkeyio.config import DEFAULTS

NAME: Final = f"hostler{layout.VERSION}"
"""Name of the library; its functions are `hostler1_<verb>`, so that a later version can run beside it."""

ArgType = Literal["text", "blob", "int", "num", "flag", "pack"]
_TYPES: Final = frozenset(("text", "blob", "int", "num", "flag", "pack"))
_FLAGS: Final = frozenset(("allow-oom", "no-writes"))
_UNPACK: Final[Mapping[str, str]] = MappingProxyType(
    {
        "text": "argv[%d]",
        "blob": "argv[%d]",
        "int": "tonumber(argv[%d])",
        "num": "tonumber(argv[%d])",
        "flag": "(argv[%d] == '1')",
        "pack": "cmsgpack.unpack(argv[%d])",
    }
)
_LIMIT_LINES: Final = 120


class Argument(Struct, frozen=True, kw_only=True):
    """One named argument of a function."""

    name: str
    type: ArgType
    rest: bool = False
    """Takes all remaining values."""


class Verb(Struct, frozen=True, kw_only=True):
    """One function: what its file's header says, and its body."""

    name: str
    purpose: str
    arguments: tuple[Argument, ...]
    flags: tuple[str, ...]
    reply: str
    body: str

    @property
    def read_only(self) -> bool:
        """Tell whether it may be called with `FCALL_RO`."""
        return "no-writes" in self.flags


class LibraryText(Struct, frozen=True, kw_only=True):
    """The assembled library."""

    name: str
    text: str
    sha256: str
    """Of the text before the hash itself was written into it."""
    verbs: Mapping[str, Verb]


class Build(Struct, frozen=True, kw_only=True):
    """How a library is built; anything but the default is for tests and never meets production data."""

    clock: Literal["server", "key"] = "server"
    """`key` takes the time from the key `clock` of the queue."""
    probe: bool = False
    """Count engine calls, and fail the n-th when asked: `hostler1_probe n` returns the count since the last
    time and lets call n of what follows fail (0 for none)."""
    version: int = layout.VERSION
    """Another one's functions stand beside these in the engine, under names of their own."""

    @property
    def name(self) -> str:
        """Return the library's name."""
        return f"hostler{self.version}"


PRODUCTION: Final = Build()


def _constants() -> dict[str, dict[str, int]]:
    return {
        "F": {name: index for index, name in enumerate(layout.RECORD, 1)},
        "S": {str(state): index for index, state in enumerate(layout.STATES, 1)},
        "V": {str(verb): index for index, verb in enumerate(layout.VERBS, 1)},
        "E": {name: index for index, name in enumerate(layout.ENDINGS, 1)},
        "A": {name: index for index, name in enumerate(layout.ATTEMPT, 1)},
        "G": {name: index for index, name in enumerate(layout.PROGRESS, 1)},
        "L": {name: index for index, name in enumerate(layout.LANE, 1)},
        "C": {name: index for index, name in enumerate(layout.CONFIG, 1)},
    }


_TABLES: Final = _constants()
_CONSTANT: Final = re.compile(r"(?<![\w.])([FSVEAGLC])\.(\w+)")
_META: Final = re.compile(r"\bq\.m\.(\w+)")


def _fill(text: str, where: str) -> str:
    """Replace every named position by its number; an unknown name is an error."""

    def number(match: re.Match[str]) -> str:
        table, name = match.group(1), match.group(2)
        if name not in _TABLES[table]:
            raise InternalError(f"{where}: {table}.{name} is not in the layout", file=where, name=name)
        return str(_TABLES[table][name])

    for name in _META.findall(text):
        if name not in layout.META:
            raise InternalError(f"{where}: q.m.{name} is not a field of meta", file=where, name=name)
    return _CONSTANT.sub(number, text)


def _moves() -> str:
    """Return the table of legal moves as Lua: `verb * 100 + from * 10 + to`, `from` 0 for a new job."""
    state = {None: 0} | {state: index for index, state in enumerate(layout.STATES, 1)}
    verb = {verb: index for index, verb in enumerate(layout.VERBS, 1)}
    codes = sorted(verb[v] * 100 + state[a] * 10 + state[b] for (a, v), targets in JOB_MOVES.items() for b in targets)
    return "local MOVES = {" + ", ".join(f"[{code}] = true" for code in codes) + "}"


def _preamble() -> str:
    states = ", ".join(f"'{state}'" for state in layout.STATES)
    counts = ", ".join(f"'n_{state}'" for state in layout.STATES)
    meta = ", ".join(f"'{name}'" for name in layout.META)
    blank = ", ".join("false" if name in layout.RECORD_TEXTS else "0" for name in layout.RECORD)
    places = ", ".join(f"{name} = {index}" for index, name in enumerate(layout.META, 1))
    defaults = ", ".join("{}" if isinstance(value, dict) else str(value) for value in DEFAULTS)
    lines = (
        _moves(),
        f"local STATES = {{{states}}}",
        f"local COUNTS = {{{counts}}}",
        f"local META = {{{meta}}}",
        f"local META_HOT = {layout.META_HOT}",
        f"local META_AT = {{{places}}}",
        f"local CONFIG = {{{defaults}}}",
        f"local SEQ_BASE = {layout.SEQ_BASE}",
        f"local SEQ_BEGIN = {layout.SEQ_BEGIN}",
        f"local LIVES_A_SECOND = {layout.LIVES_A_SECOND}",
        f"local JOBS_A_SECOND = {layout.JOBS_A_SECOND}",
        f"local JOBS_LOST = {layout.JOBS_LOST}",
        f"local LANES_LOST = {layout.LANES_LOST}",
        f"local FENCE_STEP = {layout.FENCE_STEP}",
        f"local ATTEMPTS_KEPT = {layout.ATTEMPTS_KEPT}",
        f"local EVENTS_KEPT = {layout.EVENTS_KEPT}",
        f"local EPOCHS_KEPT = {layout.EPOCHS_KEPT}",
        f"local PREVIEW_MS = {layout.PREVIEW_MS}",
        f"local APART_SOON, APART_LATE = {round(SOON * 1_000_000)}, {round(LATE * 1_000_000)}",
        f"local PASSED_MOST = {PASSED_MOST}",
        f"local BLANK = {{{blank}}}",
    )
    return "\n".join(lines)


_FORBIDDEN: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"\btostring\s*\("), "tostring rounds integers beyond 14 digits: use string.format('%.0f', n)"),
    (re.compile(r"\bcjson\b"), "cjson rounds integers beyond 2^53 and reorders: use cmsgpack"),
    (re.compile(r"^\s*(?:local\s+)?\w+\s*=\s*(?:redis|string|table|math)\.\w+\s*$"), "no aliases of sandboxed globals"),
    (re.compile(r"\bredis\.pcall\b"), "an error must end the function"),
    (re.compile(r"\.\.\s*q\.(?:now|m)\b|\bq\.now\s*\.\."), "use string.format('%.0f', n) for times and counters"),
)


def lint(text: str, where: str) -> None:
    """Refuse Lua that is known to go wrong; `InternalError` names the line and the cure."""
    lines = text.splitlines()
    if len(lines) > _LIMIT_LINES:
        raise InternalError(f"{where}: {len(lines)} lines, at most {_LIMIT_LINES}", file=where)
    for number, line in enumerate(lines, 1):
        code = line.split("--", 1)[0]
        for pattern, cure in _FORBIDDEN:
            if pattern.search(code):
                raise InternalError(f"{where}:{number}: {cure}", file=where, line=number)
        if code.startswith(("redis.call", "local _ = redis")):
            raise InternalError(f"{where}:{number}: nothing may be called while the library loads", file=where)


def _header(text: str, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    key = "purpose"
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        words = line[2:].strip()
        head, _, tail = words.partition(" ")
        if head in {"keys", "args", "flags", "reply"}:
            key, words = head, tail.strip()
        found[key] = f"{found[key]} {words}".strip() if key in found else words
    if missing := [part for part in ("purpose", "keys", "reply") if not found.get(part)]:
        raise InternalError(f"{name}.lua: the header lacks {', '.join(missing)}", file=name)
    if found["keys"] != "meta":
        raise InternalError(f"{name}.lua: the one declared key is meta", file=name)
    return found


def _arguments(words: str, name: str) -> tuple[Argument, ...]:
    result: list[Argument] = []
    for word in words.split():
        label, _, type_ = word.partition(":")
        if type_ not in _TYPES or not label.lstrip("*").isidentifier():
            raise InternalError(f"{name}.lua: {word!r} is not name:type", file=name)
        if result and result[-1].rest:
            raise InternalError(f"{name}.lua: nothing may follow *{result[-1].name}", file=name)
        result.append(Argument(name=label.lstrip("*"), type=type_, rest=label.startswith("*")))
    return tuple(result)


def parse(name: str, text: str) -> Verb:
    """Read one verb file; `InternalError` when its header is not whole."""
    head = _header(text, name)
    flags = tuple(head.get("flags", "").split())
    if unknown := set(flags) - _FLAGS:
        raise InternalError(f"{name}.lua: unknown flags {sorted(unknown)}", file=name)
    arguments = _arguments(head.get("args", ""), name)
    return Verb(name=name, purpose=head["purpose"], arguments=arguments, flags=flags, reply=head["reply"], body=text)


def _function(verb: Verb, body: str, name: str) -> str:
    lines = [f"local function verb_{verb.name}(keys, argv)", "  local meta_key = keys[1]"]
    lines.append(f"  ctx.writes = {'false' if 'no-writes' in verb.flags else 'true'}")
    for index, argument in enumerate(verb.arguments, 1):
        if argument.rest:
            lines.append(f"  local {argument.name} = tail(argv, {index})")
        else:
            lines.append(f"  local {argument.name} = {_UNPACK[argument.type] % index}")
    flags = ", ".join(f"'{flag}'" for flag in verb.flags)
    register = (
        f"redis.register_function{{function_name='{name}_{verb.name}', callback=verb_{verb.name}, flags={{{flags}}}}}"
    )
    return "\n".join((*lines, body, "end", register))


def assemble(files: Mapping[str, str], build: Build = PRODUCTION) -> LibraryText:
    """Build the library from its files by name (`claim`, `_prelude`, ...); names with `_` are shared parts."""
    shared = sorted(name for name in files if name.startswith("_"))
    verbs = {name: parse(name, files[name]) for name in sorted(files) if not name.startswith("_")}
    clock = "key" if build.clock == "key" else "server"
    parts = [f"-- {build.name}: assembled from src/hostler/valkeyio/functions", f"local CLOCK = '{clock}'", _preamble()]
    if build.probe:
        parts.append(_PROBE.replace(NAME, build.name))
    for name in (*shared, *verbs):
        lint(files[name], f"{name}.lua")
        body = _fill(files[name], f"{name}.lua")
        part = _function(verbs[name], body, build.name) if name in verbs else body
        parts.append(part.replace("redis.call(", "probe.call(") if build.probe else part)
    text = "\n".join(parts)
    digest = hashlib.sha256(text.encode()).hexdigest()
    version = (
        f"redis.register_function{{function_name='{build.name}_version', "
        f"callback=function() return '{digest}' end, flags={{'no-writes'}}}}"
    )
    whole = f"#!lua name={build.name}\n{text}\n{version}\n"
    return LibraryText(name=build.name, text=whole, sha256=digest, verbs=MappingProxyType(verbs))


_PROBE: Final = f"""
local probe = {{calls = 0, fail = 0}}
function probe.call(name, ...)
  if name == 'INFO' then -- asked now and then, whatever a call does
    return redis.call(name, ...)
  end
  probe.calls = probe.calls + 1
  if probe.calls == probe.fail then
    error('injected at engine call ' .. probe.calls)
  end
  return redis.call(name, ...)
end
redis.register_function{{function_name='{NAME}_probe', flags={{'no-writes'}}, callback=function(keys, argv)
  local calls = probe.calls
  probe.calls, probe.fail = 0, tonumber(argv[1])
  return calls
end}}
"""


def read_files(keep: Callable[[str], bool] = lambda _: True) -> dict[str, str]:
    """Return the library's files as shipped, by name without `.lua`."""
    folder = resources.files("hostler.valkeyio") / "functions"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".lua"))
    return {name[:-4]: (folder / name).read_text("utf-8") for name in names if keep(name)}


_FILES: Final = MappingProxyType(read_files())
"""Read once, with the module: nobody waits for a disk while work goes on."""


@cache
def shipped(build: Build = PRODUCTION) -> LibraryText:
    """Return the library that this Hostler brings."""
    return assemble(_FILES, build)
