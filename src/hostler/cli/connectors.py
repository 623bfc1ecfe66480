"""`hostler connectors`: which connectors there are, and what one makes of a live service."""

import json
import os
import socket
from typing import Annotated, Any, cast

from cyclopts import App, Parameter
from msgspec import Struct

from hostler.cli.flags import Common
from hostler.cli.output import FAILED, OK, Out, printable
from hostler.contracts.job import Progress
from hostler.contracts.service import EndpointState, Finished, Probe, ServiceCapabilities, Step
from hostler.kernel.errors import InvalidError, MissingExtraError, ServiceUnavailableError, SettingsError
from hostler.kernel.spec import CONVENTIONAL_PORTS, conventional_port, runs_here
from hostler.ports.connector import Connector

connectors = App(name="connectors", help="List connectors, and check one against a live service.")

GOOD = frozenset({EndpointState.READY, EndpointState.DEGRADED})
EXCERPT = 200
"""Characters of a result that are shown to people."""


class Row(Struct, frozen=True, kw_only=True):
    """One connector as `list` shows it."""

    name: str
    class_: str | None
    kinds: tuple[str, ...]
    source: str
    """The package that brings it."""
    broken: str | None = None
    """Why it cannot be used."""


@connectors.command(name="list")
async def list_(*, common: Common = Common()) -> int:
    """List the connectors of this installation, and those that are broken."""
    from hostler.connectors.catalogue import INSTALLED, service_of

    out = Out(json=common.json)
    rows: list[Row] = []
    for name, found in INSTALLED.connectors.items():
        kinds, broken = _kinds(name) if service_of(name) else ((), None)
        class_ = f"{found.__module__}:{found.__name__}"
        rows.append(Row(name=name, class_=class_, kinds=kinds, source=INSTALLED.sources[name], broken=broken))
    rows += [
        Row(name=one.name, class_=None, kinds=(), source=one.source, broken=one.reason) for one in INSTALLED.broken
    ]
    if out.json:
        items = [
            {"class" if key == "class_" else key: getattr(row, key) for key in row.__struct_fields__} for row in rows
        ]
        out.document({"items": items})
        return OK
    shown = [
        (
            row.name,
            row.source,
            (f"broken: {row.broken}" if row.broken else "") or ", ".join(row.kinds) or "by its options",
            row.class_,
        )
        for row in rows
    ]
    out.table(("connector", "package", "kinds", "class"), shown, empty="no connectors")
    return OK


@connectors.command
async def check(
    name: Annotated[str, Parameter(help="A connector, or an entry of `connectors` in hostler.toml.")],
    url: Annotated[str | None, Parameter(help="Address of the service; the entry's unless given.")] = None,
    /,
    *,
    payload: Annotated[str | None, Parameter(help="Small work as JSON; it is done about ten times.")] = None,
    slow: Annotated[str | None, Parameter(help="Work of at least 3 s as JSON; it is begun, and stopped.")] = None,
    wrong: Annotated[str | None, Parameter(help="JSON that does not fit the kind.")] = None,
    kind: Annotated[str | None, Parameter(help="Kind of the work; the first that the service has.")] = None,
    options: Annotated[str | None, Parameter(help="The connector's options as JSON; the entry's unless given.")] = None,
    api_key_env: Annotated[str | None, Parameter(help="Variable that holds the credential.")] = None,
    within: Annotated[float, Parameter(help="Seconds that one promise may take.")] = 60.0,
    common: Common = Common(),
) -> int:
    """Put the promises of the connector port to a live service.

    Without --payload nothing is asked of it but how it is and what it has.
    """
    from hostler.testing.connectors_check import SUPPORTS, Asked, Verdict, first_run, sentence_of, verdicts

    out = Out(json=common.json)
    subject = _subject(name, url, options, api_key_env, common)
    probe, found = await _look(subject)
    _show(out, subject, probe, found)
    kinds = [spec.name for spec in subject.build().kinds()]
    asked = Asked(
        kind=kind or next((one for one in kinds if found and one in found.kinds), kinds[0]),
        payload=_json("--payload", payload),
        slow=_json("--slow", slow),
        wrong=_json("--wrong", wrong),
    )
    sick = None if probe.state in GOOD else f"the service is {probe.state}"
    if sick is not None:
        out.say(f"{sick}, so nothing is asked of it: start it, or correct the URL")
    remembers, steps = False, list[Step]()
    if asked.payload is not None and sick is None:
        ref, steps = await first_run(subject.build(), asked)
        remembers = ref is not None and ref.heritable
        out.say(_told(steps))
    results: list[Verdict] = []
    asking = verdicts(subject.build, subject.unreachable, asked, remembers=remembers, within=within, sick=sick)
    async for verdict in asking:
        results.append(verdict)
        out.say(f"{verdict.outcome:8} {verdict.promise}{printable(f': {verdict.reason}') if verdict.reason else ''}")
    outcomes = {verdict.promise: verdict.outcome for verdict in results}
    supports = {what: outcomes[sentence_of(promise)] for what, promise in SUPPORTS.items()}
    if supports["reconcile"] == "kept" and not remembers:
        supports["reconcile"] = "not by others"
    good = sick is None and all(verdict.outcome != "broken" for verdict in results)
    out.say("supports: " + ", ".join(f"{what} {outcome}" for what, outcome in supports.items()))
    if out.json:
        end = steps[-1] if steps else None
        document = {"connector": name, "url": subject.url, "probe": probe, "capabilities": found, "kind": asked.kind}
        document |= {"end": end, "supports": supports, "promises": results, "outcome": "ok" if good else "bad"}
        out.document(document)
    return OK if good else FAILED


class Subject(Struct, frozen=True, kw_only=True):
    """What is checked: everything that building a connector to it takes."""

    connector: str
    url: str
    options: dict[str, Any]
    api_key: str | None
    slots: int | None

    def build(self) -> Connector:
        """Return a new connector to the service."""
        return self._to(self.url, self.options)

    def unreachable(self) -> Connector:
        """Return one to where nobody is."""
        if runs_here(self.connector):
            return self._to(self.url, {**self.options, "command": ["/no/such/program"], "health": []})
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            return self._to(f"{self.url.partition('://')[0]}://localhost:{probe.getsockname()[1]}", self.options)

    def _to(self, url: str, options: dict[str, Any]) -> Connector:
        from hostler.connectors.catalogue import build

        return build(self.connector, url=url, options=options, api_key=self.api_key, slots=self.slots)


def _subject(name: str, url: str | None, options: str | None, api_key_env: str | None, common: Common) -> Subject:
    from hostler.cli.config import load

    entry = load({}, config=common.config).settings.connectors.get(name)
    given = _object("--options", options)
    connector = entry.connector if entry else name
    address = url or (entry.url if entry else None)
    if address is None and runs_here(connector):
        address = f"process:///{name}"
    if address is None:
        raise SettingsError(f"hostler connectors check {name}: say where the service is: URL", problems=())
    variable = api_key_env or (entry.api_key_env if entry else None)
    key = os.environ.get(variable) if variable else None
    if variable and not key:
        raise SettingsError(f"variable {variable} is not set, and it is to hold the credential", problems=())
    return Subject(
        connector=connector,
        url=address,
        options=given if given is not None else (entry.options if entry else {}),
        api_key=key,
        slots=entry.slots if entry else None,
    )


async def _look(subject: Subject) -> tuple[Probe, ServiceCapabilities | None]:
    async with subject.build() as connector:
        probe = await connector.probe()
        try:
            return probe, await connector.capabilities()
        except ServiceUnavailableError:
            return probe, None


def _show(out: Out, subject: Subject, probe: Probe, found: ServiceCapabilities | None) -> None:
    out.say(printable(f"{subject.connector} at {subject.url}: {probe.state} ({probe.message})"))
    if found is not None:
        models = ", ".join(found.models) if found.models_known else "it does not say"
        slots = ", ".join(f"{name} {pool.total:g}" for name, pool in found.pools.items()) or "it does not say"
        out.say(printable(f"kinds {', '.join(found.kinds)}; models {models}; room {slots}"))


def _told(steps: list[Step]) -> str:
    reports = sum(isinstance(step, Progress) for step in steps)
    end = steps[-1]
    if isinstance(end, Finished):
        return printable(f"done, after {reports} reports: {bytes(end.result).decode(errors='replace')[:EXCERPT]}")
    failure = getattr(end, "failure", None)
    return printable(f"failed, after {reports} reports: {failure.label}: {failure.message}" if failure else "no end")


def _json(flag: str, text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{flag}: expected JSON, got {text!r} ({error})", problems=()) from None


def _object(flag: str, text: str | None) -> dict[str, Any] | None:
    found = _json(flag, text)
    if found is not None and not isinstance(found, dict):
        raise SettingsError(f"{flag}: expected a JSON object, got {text!r}", problems=())
    return cast("dict[str, Any] | None", found)


def _kinds(name: str) -> tuple[tuple[str, ...], str | None]:
    """Return the kinds of a connector, and why it has none when an extra is absent."""
    from hostler.connectors.catalogue import build

    port = conventional_port(name) or next(iter(CONVENTIONAL_PORTS.values()))
    try:
        return tuple(spec.name for spec in build(name, url=f"http://localhost:{port}").kinds()), None
    except MissingExtraError as error:
        return (), error.message
    except InvalidError:
        return (), None
