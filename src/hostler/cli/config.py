"""The edge of the settings: reads the one file, the environment and the flags, once."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from hostler.client.address import DEFAULT_FILE, reason_of, settings_file
from hostler.connectors.config import OnRateHint
from hostler.contracts.queue import KindSpec, QueueSpec
from hostler.dispatch.account import Account
from hostler.kernel.errors import InvalidError
from hostler.kernel.fields import known_fields
from hostler.kernel.settings import Settings
from hostler.kernel.sources import Reading, Sources, Text, mapping_path, read_settings
from hostler.kernel.spec import Instance, SpecItem, resolve_spec
from hostler.ports.blobs import Blobs
from hostler.ports.connector import Connector

Parts = tuple[tuple[SpecItem, tuple[Instance, ...]], ...]


class Loaded(Struct, frozen=True, kw_only=True):
    """Settings with what they came from."""

    settings: Settings
    reading: Reading
    file: str | None
    """The settings file that was read, absolute; None when there is none."""
    queues: tuple[QueueSpec, ...]
    kinds: tuple[KindSpec, ...]

    @property
    def origin(self) -> str:
        """Return where settings were looked for, as a process says at its start."""
        return self.file or f"none ({Path.cwd() / DEFAULT_FILE} is not there)"


def load(
    flags: Mapping[str, tuple[str, Any]],
    *,
    config: str | None = None,
    check: Callable[[Settings], tuple[str, ...]] | None = None,
) -> Loaded:
    """Read all sources; `SettingsError` with every problem, what `check` finds in the settings included."""
    environment = dict(os.environ)
    file, path = settings_file(config, environment)
    sources = Sources(file=file, environment=environment, flags=flags)
    mapping = mapping_path(sources)
    problems: list[str] = []
    if mapping:
        try:
            text = _beside(path, mapping, flags).read_text(encoding="utf-8")
            sources = _with_mapping(sources, Text(name=Path(mapping).name, text=text))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"mapping: {mapping}: cannot be read ({reason_of(error)})")
    reading = read_settings(sources)
    settings = reading.settings
    queues = _rows(settings.queues, QueueSpec, "queues", problems)
    kinds = _rows(settings.kinds, KindSpec, "kinds", problems)
    if check is not None and not reading.problems:
        problems.extend(check(settings))
    return Loaded(
        settings=reading.checked(*problems), reading=reading, file=path and str(path), queues=queues, kinds=kinds
    )


def _with_mapping(sources: Sources, mapping: Text) -> Sources:
    from hostler.connectors.catalogue import OLD_NAMES

    return msgspec.structs.replace(sources, mapping=mapping, connectors=connectors_known(), renamed=OLD_NAMES)


def connectors_known() -> tuple[str, ...]:
    """Return the names of all connectors."""
    from hostler.connectors.catalogue import connector_names

    return connector_names()


def parts_of(spec: str, *, name: str, settings: Settings) -> tuple[Parts, tuple[str, ...]]:
    """Resolve a SPEC, and let every connector judge its own address and options; returns all problems."""
    parts, problems = resolve_spec(spec, name=name, settings=settings, known=connectors_known())
    found = list(problems)
    for instance in (instance for _, instances in parts for instance in instances):
        try:
            account_of(build_connector(instance, settings), instance)
        except InvalidError as error:
            found.append(f"connectors.{instance.name}: {error.message}")
    return parts, tuple(dict.fromkeys(found))


def account_of(connector: Connector, instance: Instance) -> Account:
    """Return what keeps account of an entry's limits; `InvalidError` for one that its connector cannot account for."""
    return Account(connector, instance.settings.limits, instance.settings.price)


def build_connector(
    instance: Instance,
    settings: Settings,
    *,
    blobs: Blobs | None = None,
    endpoint: str | None = None,
    on_rate_hint: OnRateHint | None = None,
) -> Connector:
    """Return the connector of one instance, not yet opened; `InvalidError` for what can never work.

    `endpoint` is the id under which the endpoint was announced; made from name and URL unless given.

    The credential is read here, from the variable that the settings name, and kept nowhere else.
    """
    from hostler.connectors.catalogue import build

    chosen = instance.settings
    key = os.environ.get(chosen.api_key_env) if chosen.api_key_env else None
    if chosen.api_key_env and not key:
        raise InvalidError(f"variable {chosen.api_key_env} is not set, and api_key_env names it")
    return build(
        chosen.connector,
        url=chosen.url or "",
        endpoint=endpoint,
        slots=chosen.slots,
        api_key=key,
        labels=chosen.labels,
        options=chosen.options,
        http=settings.http,
        blobs=blobs,
        on_rate_hint=on_rate_hint,
    )


def spec_name(loaded: Reading, path: str) -> str:
    """Return the name under which the operator gave a SPEC."""
    origin = loaded.origins.get(path, path)
    return f"{origin}: {path}" if origin.endswith(".toml") else origin


def _beside(file: Path | None, mapping: str, flags: Mapping[str, tuple[str, Any]]) -> Path:
    """Return the mapping's path: relative to the settings file where that names it, else to the working directory."""
    typed = "mapping" in flags or os.environ.get("HOSTLER_MAPPING")
    return Path(mapping) if typed or file is None else file.parent / mapping


def _rows(rows: Mapping[str, Any], shape: type[Any], table: str, problems: list[str]) -> tuple[Any, ...]:
    found: list[Any] = []
    for name, row in rows.items():
        try:
            found.append(msgspec.convert({"name": name, **row}, shape))
        except (msgspec.ValidationError, TypeError) as error:
            problems.append(f"{DEFAULT_FILE}: {table}.{name}: {error}{known_fields(error, shape)}")
    return tuple(found)
