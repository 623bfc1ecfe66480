"""The prior broker's `service-mapping.json` and `WORKERS` string, read as they are.

What the whole file must satisfy (its parts fit together) is judged for all of it; what only matters to what
runs (a connector that exists, a variable that is set, a free port) is judged for the worker types that
`WORKERS` names, or for all of them where there is no `WORKERS`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct, field

from hostler.kernel.names import class_name, listed, nearest
from hostler.kernel.spec import CONVENTIONAL_PORTS, conventional_port, moved_port, parse_spec, port_of

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_USED = frozenset({"base_url", "url", "api_key"})
_Object = dict[str, Any]


class Imported(Struct, frozen=True, kw_only=True):
    """What came of a mapping."""

    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings by path."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def import_mapping(
    text: str,
    *,
    name: str,
    environment: Mapping[str, str],
    known: Sequence[str],
    renamed: Mapping[str, str],
    workers: tuple[str, str] | None,
) -> Imported:
    """Turn a mapping into settings.

    `name` is what the file is called, `known` are the connectors that exist, `renamed` are old classes by
    the connector that they are now, `workers` is the `WORKERS` string after the name under which it was given.
    """
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        return Imported(problems=(f"{name}: expected JSON, got: {error}",))
    if not isinstance(document, dict):
        return Imported(problems=(f"{name}: expected an object with workers, services and connectors",))
    return _Import(cast("_Object", document), name, environment, known, renamed).run(workers)


class _Import:
    """One reading of one file; collects as it goes."""

    def __init__(
        self,
        document: _Object,
        name: str,
        environment: Mapping[str, str],
        known: Sequence[str],
        renamed: Mapping[str, str],
    ) -> None:
        self._name = name
        self._environment = environment
        self._classes = {class_name(connector).lower(): connector for connector in known}
        self._known = known
        self._renamed = renamed
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._unset: dict[str, list[str]] = {}
        self._values: _Object = {}
        self._workers = self._section(document, "workers")
        self._services = self._section(document, "services")
        self._connectors = self._section(document, "connectors") if "connectors" in document else None

    def run(self, workers: tuple[str, str] | None) -> Imported:
        """Judge everything and return what came of it."""
        counts = self._counts(workers)
        members = {kind: self._members(kind, worker) for kind, worker in self._workers.items()}
        self._dangling_connectors()
        instances: dict[str, int] = {}
        for kind, count in counts.items():
            self._require(self._workers[kind], f"workers.{kind}")
            for service in members[kind]:
                instances[service] = instances.get(service, 0) + count
        for service in instances:
            self._service(service)
        self._clashes(instances)
        for variable, places in self._unset.items():
            self._say(f"variable {variable} is not set; needed by {', '.join(places)}")
        self._values["worker_types"] = {kind: members[kind] for kind in counts}
        return Imported(values=self._values, problems=tuple(self._problems), notes=tuple(self._notes))

    def _say(self, problem: str) -> None:
        self._problems.append(f"{self._name}: {problem}")

    def _section(self, document: _Object, section: str) -> dict[str, _Object]:
        body = document.get(section)
        if not isinstance(body, dict):
            self._say(f"{section}: expected an object, got {type(body).__name__ if body is not None else 'nothing'}")
            return {}
        entries: dict[str, _Object] = {}
        for key, value in cast("_Object", body).items():
            if isinstance(value, dict):
                entries[key] = cast("_Object", value)
            else:
                self._say(f"{section}.{key}: expected an object")
        return entries

    def _counts(self, workers: tuple[str, str] | None) -> dict[str, int]:
        if workers is None:
            return dict.fromkeys(self._workers, 1)
        typed, text = workers
        items, wrong = parse_spec(text)
        self._problems.extend(f"{typed}: {problem}" for problem in wrong)
        counts: dict[str, int] = {}
        for item in items:
            if item.name in self._workers:
                counts[item.name] = counts.get(item.name, 0) + item.count
            else:
                self._problems.append(
                    f"{typed}: unknown worker type {item.name!r}, {self._name} has {listed(self._workers)}"
                    f"{nearest(item.name, self._workers)}"
                )
        return counts

    def _members(self, kind: str, worker: _Object) -> list[str]:
        """Return the services of one worker type, each once, in order."""
        where = f"workers.{kind}"
        if "service" in worker and "services" not in worker:
            self._say(f"{where}.service: an older form; expected services and job_service_required_map")
            return []
        named: list[tuple[str, Any]] = [(f"{where}.services", each) for each in self._list(worker, "services", where)]
        for entry in self._list(worker, "job_service_required_map", where):
            service = cast("_Object", entry).get("worker_service") if isinstance(entry, dict) else None
            named.append((f"{where}.job_service_required_map", service))
        if not named:
            self._say(f"{where}: expected services, got none")
        members: list[str] = []
        for place, service in named:
            if not isinstance(service, str) or service not in self._services:
                known = listed(self._services)
                hint = nearest(str(service), self._services)
                self._say(f"{place}: names the service {service!r}, which services does not have ({known}){hint}")
            elif service not in members:
                members.append(service)
        return members

    def _list(self, body: _Object, key: str, where: str) -> list[Any]:
        value = body.get(key, [])
        if isinstance(value, list):
            return cast("list[Any]", value)
        self._say(f"{where}.{key}: expected a list")
        return []

    def _dangling_connectors(self) -> None:
        if self._connectors is None:
            return
        for service, body in self._services.items():
            named = body.get("connector")
            if isinstance(named, str) and named not in self._connectors:
                hint = nearest(named, self._connectors)
                self._say(f"services.{service}.connector: names {named!r}, which connectors does not have{hint}")

    def _require(self, body: _Object, where: str) -> None:
        for variable in self._list(body, "required_env", where):
            if not self._environment.get(str(variable)):
                self._miss(str(variable), f"{where}.required_env")

    def _miss(self, variable: str, place: str) -> None:
        places = self._unset.setdefault(variable, [])
        if place not in places:
            places.append(place)

    def _service(self, service: str) -> None:
        body = self._services[service]
        where = f"services.{service}"
        self._require(body, where)
        connector = self._connector(body.get("connector"), where)
        config = self._substituted(body.get("api_config", {}), f"{where}.api_config")
        unused = sorted(set(config) - _USED)
        if unused:
            self._notes.append(f"{self._name}: {where}.api_config: not used: {', '.join(unused)}")
        credential = self._credential(body, where)
        url = self._url(service, body, config, connector)
        if connector is None:
            return
        path = f"connectors.{service}"
        self._values[f"{path}.connector"] = connector
        if url:
            self._values[f"{path}.url"] = url
        if credential:
            self._values[f"{path}.api_key_env"] = credential
        increment = body.get("port_increment")
        if increment is not None:
            self._values[f"{path}.port_increment"] = increment
        names = self._asked_as(service)
        if names:
            self._values[f"{path}.labels"] = {f"job_service:{name}": "yes" for name in names}

    def _asked_as(self, service: str) -> list[str]:
        """Return the names under which the prior system's jobs ask for a service."""
        names: list[str] = []
        for worker in self._workers.values():
            entries = worker.get("job_service_required_map", [])
            for entry in cast("list[Any]", entries) if isinstance(entries, list) else []:
                pair = cast("_Object", entry) if isinstance(entry, dict) else {}
                asked = pair.get("job_service_required")
                if pair.get("worker_service") == service and isinstance(asked, str) and asked not in names:
                    names.append(asked)
        return names

    def _connector(self, named: Any, where: str) -> str | None:
        if not isinstance(named, str):
            self._say(f"{where}.connector: expected the name of a connector, got {named!r}")
            return None
        if named in self._renamed:
            now = self._renamed[named]
            self._say(f"{where}.connector: {named} is now {class_name(now)} ({now})")
            return None
        found = self._classes.get(named.lower()) or (named if named in self._known else None)
        if found is None:
            classes = [class_name(connector) for connector in self._known]
            self._say(
                f"{where}.connector: unknown connector {named!r}, known are {listed(classes)}{nearest(named, classes)}"
            )
        return found

    def _substituted(self, config: Any, where: str) -> dict[str, str]:
        if not isinstance(config, dict):
            self._say(f"{where}: expected an object")
            return {}
        return {
            key: self._substitute(str(value), f"{where}.{key}")
            for key, value in cast("_Object", config).items()
            if isinstance(value, str | int | float)
        }

    def _substitute(self, text: str, place: str) -> str:
        def put(match: re.Match[str]) -> str:
            value = self._environment.get(match["name"])
            if value:
                return value
            if match["default"] is None:
                self._miss(match["name"], place)
            return match["default"] or ""

        return _VARIABLE.sub(put, text)

    def _credential(self, body: _Object, where: str) -> str | None:
        """Return the variable that holds the credential; the credential itself never enters the settings."""
        config = body.get("api_config")
        raw = cast("_Object", config).get("api_key") if isinstance(config, dict) else None
        match = _VARIABLE.fullmatch(str(raw))
        if raw is not None and match is None:
            self._say(f"{where}.api_config.api_key: expected ${{VARIABLE}}, got the credential itself")
        return match["name"] if match else None

    def _url(self, service: str, body: _Object, config: Mapping[str, str], connector: str | None) -> str | None:
        where = f"services.{service}"
        address = config.get("base_url") or config.get("url")
        if address:
            return address
        if "base_url" in config or "url" in config:
            return None  # its variable is not set, and listed as such
        ports = self._list(body, "ports", where)
        if ports:
            text = self._substitute(str(ports[0]), f"{where}.ports")
            if text.isdigit() and 1 <= int(text) <= 65535:  # noqa: PLR2004 - the range of TCP ports
                return f"http://127.0.0.1:{text}"
            if text:
                self._say(f"{where}.ports: expected a port from 1 to 65535, got {text!r}")
            return None
        port = conventional_port(connector or service) or conventional_port(service)
        if port is not None:
            return f"http://127.0.0.1:{port}"
        known = ", ".join(f"{kind} {port}" for kind, port in CONVENTIONAL_PORTS.items())
        self._say(f"{where}: neither ports nor api_config.base_url, and no port by convention (known: {known})")
        return None

    def _clashes(self, instances: Mapping[str, int]) -> None:
        taken: dict[str, str] = {}
        for service, count in instances.items():
            url = self._values.get(f"connectors.{service}.url")
            increment = self._values.get(f"connectors.{service}.port_increment", 1)
            if not isinstance(url, str) or not url.startswith("http://127.0.0.1:") or not isinstance(increment, int):
                continue
            for index in range(count):
                address = moved_port(url, index * increment)
                mine = f"services.{service} (instance {index})"
                if address in taken:
                    self._say(f"port {port_of(address)} is wanted by both {taken[address]} and {mine}")
                else:
                    taken[address] = mine
