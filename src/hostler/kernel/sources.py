"""Where settings come from: defaults < imported mapping < settings file < `HOSTLER_*` < flags, into one frozen tree.

Pure: the edge (`hostler.cli`) reads the files and hands in their text. Every problem is found in one go and named
as the operator typed it; nothing is half loaded, and no source that is broken is skipped.
"""

import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct, field

from hostler.kernel.errors import SettingsError
from hostler.kernel.mapping import Imported, import_mapping
from hostler.kernel.names import nearest
from hostler.kernel.settings import ConnectorSettings, Settings
from hostler.kernel.table import CONFIG_VARIABLE, PREFIX, Setting, rows_of, settings_table

DEFAULT_SOURCE = "default"


class Text(Struct, frozen=True, kw_only=True):
    """A file that was read: what it is called, and what is in it."""

    name: str
    text: str


class Sources(Struct, frozen=True, kw_only=True):
    """Everything that settings may come from."""

    file: Text | None = None
    """`hostler.toml`."""
    mapping: Text | None = None
    """`service-mapping.json` of the prior broker."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """All of it: `HOSTLER_*`, and what a mapping names as `${VAR}`."""
    flags: Mapping[str, tuple[str, Any]] = field(default_factory=dict[str, tuple[str, Any]])
    """By path: the flag as it was typed, and its value."""
    connectors: Sequence[str] = ()
    """Names of the connectors that exist, `<service>-<transport>`."""
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    """Classes of the prior system by the connector that they are now."""


class Reading(Struct, frozen=True, kw_only=True):
    """What came of the sources; `problems` is empty when `settings` can be used."""

    settings: Settings
    origins: Mapping[str, str]
    """Where each value came from, by path; `default` for what nobody set."""
    problems: tuple[str, ...] = ()
    """`NAME: expected ..., got ...`, NAME as it was typed."""
    notes: tuple[str, ...] = ()
    """What an imported mapping says that Hostler does not use."""

    def checked(self, *more: str) -> Settings:
        """Return the settings; `SettingsError` with every problem, `more` included, if there are any."""
        refuse((*self.problems, *more))
        return self.settings


class _Found(Struct, frozen=True, kw_only=True):
    path: str
    name: str
    """As the operator typed it."""
    source: str
    value: Any


def refuse(problems: Sequence[str]) -> None:
    """Raise `SettingsError` with every problem, or return when there are none."""
    if not problems:
        return
    count = "1 setting is wrong" if len(problems) == 1 else f"{len(problems)} settings are wrong"
    raise SettingsError(f"{count}: " + "; ".join(problems), problems=tuple(problems))


def mapping_path(sources: Sources) -> str | None:
    """Return which mapping file the sources name, if any; wrong sources are left to `read_settings`."""
    if "mapping" in sources.flags:
        return str(sources.flags["mapping"][1])
    if sources.environment.get("HOSTLER_MAPPING"):
        return sources.environment["HOSTLER_MAPPING"]
    table, _ = _parse_file(sources.file)
    named = table.get("mapping")
    return named if isinstance(named, str) else None


def read_settings(sources: Sources) -> Reading:
    """Merge all sources and judge every value; raises nothing for what an operator got wrong."""
    table = settings_table()
    problems: list[str] = []
    parsed, broken = _parse_file(sources.file)
    problems.extend(broken)
    from_file, unknown = _from_file(parsed, sources.file.name if sources.file else "", table)
    problems.extend(unknown)
    from_environment, unknown = _from_environment(sources.environment, table, parsed)
    problems.extend(unknown)
    from_flags = [
        _Found(path=path, name=name, source=name, value=value) for path, (name, value) in sources.flags.items()
    ]
    imported, from_mapping = _from_mapping(sources, (*from_file, *from_environment, *from_flags))
    problems.extend(imported.problems)
    tree: dict[str, Any] = {}
    origins = dict.fromkeys(table, DEFAULT_SOURCE)
    levels = (from_mapping, from_file, from_environment, from_flags)
    for found in (found for level in levels for found in level):
        value = _judge(found, _setting_of(found.path, table), problems)
        if value is not msgspec.UNSET:
            _plant(tree, found.path, value)
            origins[found.path] = found.source
    problems.extend(_either_engine(tree, origins, levels))
    problems.extend(_incomplete_connectors(tree, origins))
    settings = Settings() if problems else msgspec.convert(tree, Settings)
    return Reading(settings=settings, origins=origins, problems=tuple(problems), notes=imported.notes)


def _parse_file(file: Text | None) -> tuple[dict[str, Any], list[str]]:
    if file is None:
        return {}, []
    try:
        return tomllib.loads(file.text), []
    except tomllib.TOMLDecodeError as error:
        return {}, [f"{file.name}: expected TOML, got: {error}"]


def _from_file(parsed: Mapping[str, Any], name: str, table: Mapping[str, Setting]) -> tuple[list[_Found], list[str]]:
    branches = {path.rsplit(".", 1)[0] for path in table if "." in path}
    entries = {row.path for row in rows_of(ConnectorSettings, "")}
    found: list[_Found] = []
    problems: list[str] = []

    def take(path: str, value: Any) -> None:
        found.append(_Found(path=path, name=f"{name}: {path}", source=name, value=value))

    for key, value in parsed.items():
        if key == "connectors" and isinstance(value, dict):
            _take_connectors(cast("dict[str, Any]", value), name, take, problems, entries)
        elif key in table:
            take(key, value)
        elif key not in branches:
            problems.append(f"{name}: {key}: unknown setting{nearest(key, (*table, *branches))}")
        elif not isinstance(value, dict):
            problems.append(f"{name}: {key}: expected a table, got {_shown(value)}")
        else:
            for inner, leaf in cast("dict[str, Any]", value).items():
                path = f"{key}.{inner}"
                if path in table:
                    take(path, leaf)
                else:
                    problems.append(f"{name}: {path}: unknown setting{nearest(path, table)}")
    return found, problems


def _take_connectors(value: dict[str, Any], name: str, take: Any, problems: list[str], entries: set[str]) -> None:
    for entry, body in value.items():
        if not isinstance(body, dict):
            problems.append(f"{name}: connectors.{entry}: expected a table, got {_shown(body)}")
            continue
        for key, leaf in cast("dict[str, Any]", body).items():
            path = f"connectors.{entry}.{key}"
            if key in entries:
                take(path, leaf)
            else:
                problems.append(f"{name}: {path}: unknown setting{nearest(key, entries)}")


def _from_environment(
    environment: Mapping[str, str], table: Mapping[str, Setting], parsed: Mapping[str, Any]
) -> tuple[list[_Found], list[str]]:
    paths = {setting.variable: path for path, setting in table.items() if setting.variable}
    credentials = _credential_variables(parsed)
    found: list[_Found] = []
    problems: list[str] = []
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or name in credentials:
            continue
        if name in paths:
            value = environment[name]
            found.append(_Found(path=paths[name], name=name, source=name, value=_from_text(value, table[paths[name]])))
        else:
            problems.append(f"{name}: unknown setting{nearest(name, (*paths, CONFIG_VARIABLE))}")
    return found, problems


def _credential_variables(parsed: Mapping[str, Any]) -> set[str]:
    connectors = parsed.get("connectors")
    entries = cast("dict[str, Any]", connectors).values() if isinstance(connectors, dict) else ()
    return {str(cast("dict[str, Any]", entry).get("api_key_env")) for entry in entries if isinstance(entry, dict)}


def _from_text(text: str, setting: Setting) -> Any:
    """Return an environment variable's text as a list or table where the setting is one."""
    if setting.expected.startswith("a list"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if setting.expected.startswith("a table"):
        pairs = [part.split("=", maxsplit=1) for part in text.split(",") if part.strip()]
        if any(len(pair) != 2 for pair in pairs):  # noqa: PLR2004 - a name and a value
            return text
        return {name.strip(): value.strip() for name, value in pairs}
    return text


def _from_mapping(sources: Sources, above: Sequence[_Found]) -> tuple[Imported, list[_Found]]:
    if sources.mapping is None:
        return Imported(), []
    workers = next((found for found in reversed(above) if found.path == "workers"), None)
    legacy = sources.environment.get("WORKERS")
    found: list[_Found] = []
    if legacy is not None:
        found.append(_Found(path="workers", name="WORKERS", source="WORKERS", value=legacy))
    name, text = (workers.name, workers.value) if workers else ("WORKERS", legacy)
    imported = import_mapping(
        sources.mapping.text,
        name=sources.mapping.name,
        environment=sources.environment,
        known=sources.connectors,
        renamed=sources.renamed,
        workers=(name, text) if isinstance(text, str) else None,
    )
    source = sources.mapping.name
    for path, value in imported.values.items():
        found.append(_Found(path=path, name=f"{source}: {path}", source=source, value=value))
    return imported, found


def _setting_of(path: str, table: Mapping[str, Setting]) -> Setting:
    if path in table:
        return table[path]
    _, _, leaf = path.rpartition(".")
    return next(row for row in rows_of(ConnectorSettings, "") if row.path == leaf)


def _judge(found: _Found, setting: Setting, problems: list[str]) -> Any:
    typed = found.name.startswith((PREFIX, "--")) and isinstance(found.value, str)
    try:
        return msgspec.convert(found.value, setting.annotation, strict=not typed)
    except msgspec.ValidationError:
        shown = "a value that is not shown" if setting.path == "key" else _shown(found.value)
        problems.append(f"{found.name}: expected {setting.expected}, got {shown}")
        return msgspec.UNSET


def _shown(value: Any) -> str:
    return textwrap.shorten(repr(value), 80, placeholder="...")


def _plant(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set one leaf; a connector's name may hold dots, so only its first and last dot part the path."""
    head, _, rest = path.partition(".")
    if head == "connectors":
        entry, _, leaf = rest.rpartition(".")
        tree.setdefault(head, {}).setdefault(entry, {})[leaf] = value
    elif rest:
        tree.setdefault(head, {})[rest] = value
    else:
        tree[head] = value


def _either_engine(tree: dict[str, Any], origins: dict[str, str], levels: Sequence[Sequence[_Found]]) -> list[str]:
    """Let the higher source win when both a server and a folder are named; two of one source exclude each other."""
    engine: dict[str, Any] = tree.get("engine", {})
    if engine.get("url") is None or engine.get("data") is None:
        return []
    rank = {found.path: (number, found.name) for number, level in enumerate(levels) for found in level}
    (url_rank, url_name), (data_rank, data_name) = rank["engine.url"], rank["engine.data"]
    if url_rank == data_rank:
        return [f"{url_name} and {data_name}: expected one of the two, got both"]
    loser, winner = ("engine.url", data_name) if data_rank > url_rank else ("engine.data", url_name)
    engine[loser.partition(".")[2]] = None
    origins[loser] = f"overruled by {winner}"
    return []


def _incomplete_connectors(tree: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    problems: list[str] = []
    for entry, body in cast("dict[str, dict[str, Any]]", tree.get("connectors", {})).items():
        if "connector" not in body:
            source = next(source for path, source in origins.items() if path.startswith(f"connectors.{entry}."))
            problems.append(f"{source}: connectors.{entry}.connector: expected the name of a connector, got nothing")
    return problems
