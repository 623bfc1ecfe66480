"""A connector in a package of somebody else, and services by configuration alone, from installation to result."""

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import hostler
from hostler.client.fleet import Fleet
from hostler.client.handle import JobHandle
from hostler.kernel.errors import UnknownKindError
from hostler.testing.eventually import eventually

from .conftest import Shell

PAGES = Path(__file__).parents[3] / "docs" / "connectors"
PROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"

    [project]
    name = "beacon-connector"
    version = "1.0"

    [project.entry-points."hostler.connectors"]
    beacon-http = "beacon:BeaconHttpConnector"

    [tool.hatch.build.targets.wheel]
    include = ["beacon.py"]
"""
CONNECTOR = '''
    """The lighthouse's `/embed`, from Hostler's parts."""

    import msgspec
    from hostler.connectors.direct import DirectCalls
    from hostler.connectors.faults import ServiceFaultError, failure
    from hostler.connectors.health import probe_failure, service_unavailable
    from hostler.connectors.schemas import kind_spec, open_payload
    from hostler.connectors.stages import Stages
    from hostler.connectors.transports.http import HttpTransport
    from hostler.contracts.failure import FailureClass, Stage
    from hostler.contracts.service import EndpointState, Failed, Finished, Probe, ServiceCapabilities


    class Text(msgspec.Struct, frozen=True, kw_only=True):
        text: str


    class Answer(msgspec.Struct, frozen=True, kw_only=True):
        vector: tuple[float, ...]


    class BeaconHttpConnector:
        name = "beacon-http"
        service = "beacon"

        def __init__(self, config):
            self.endpoint = config.endpoint
            self._http = HttpTransport(config.url, settings=config.http, api_key=config.api_key)
            self._calls = DirectCalls()

        async def __aenter__(self):
            await self._http.__aenter__()
            return self

        async def __aexit__(self, *error):
            await self._calls.close()
            await self._http.__aexit__(*error)

        def kinds(self):
            about = "Turn a text into a vector"
            return (kind_spec("beacon.embed", queue="embed", about=about, service=self.service, connector=self.name,
                              payload=Text, result=Answer),)

        async def probe(self):
            try:
                (await self._http.call("GET", "/healthz", within=5.0)).expect()
            except ServiceFaultError as error:
                return probe_failure(error)
            return Probe(state=EndpointState.READY, message="lit", slots=2)

        async def capabilities(self):
            try:
                (await self._http.call("GET", "/stock", within=5.0)).expect()
            except ServiceFaultError as error:
                raise service_unavailable(self.endpoint, error) from error
            return ServiceCapabilities(kinds=("beacon.embed",))

        async def submit(self, call):
            try:
                if call.kind != "beacon.embed":
                    return Failed(failure=failure(FailureClass.INVALID_INPUT, f"no kind {call.kind}"))
                body = msgspec.json.encode(open_payload(call.payload, Text))
            except ServiceFaultError as error:
                return Failed(failure=error.failure)
            stages = Stages.of(call)

            async def exchange(report):
                within, _, _ = stages.left(Stage.FIRST_BYTE)
                answer = await self._http.call("POST", "/embed", body=body, within=within, stage=Stage.FIRST_BYTE)
                return Finished(result=msgspec.Raw(msgspec.json.encode(answer.expect().json(Answer))))

            return self._calls.start(call, exchange)

        def observe(self, call, ref):
            return self._calls.observe(ref)

        async def reconcile(self, ref):
            return self._calls.state(ref)

        async def fetch(self, ref):
            return self._calls.outcome(ref)

        async def cancel(self, ref):
            return await self._calls.cancel(ref)

        async def release(self, ref):
            await self._calls.release(ref)
'''


def installed(folder: Path) -> Path:
    """Build the package and install it as anybody would, beside everything else."""
    source, site = folder / "beacon", folder / "site"
    source.mkdir()
    (source / "pyproject.toml").write_text(textwrap.dedent(PROJECT))
    (source / "beacon.py").write_text(textwrap.dedent(CONNECTOR))
    flags = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *flags, str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return site


def written(page: str) -> str:
    """Return the settings of a page as they are written there."""
    return (PAGES / page).read_text().partition("```toml\n")[2].partition("```")[0]


@pytest.mark.timeout(240)
@pytest.mark.row("000:41", "002:113", "002:281")
async def test_a_package_and_two_descriptions_serve_jobs_without_an_edit_in_hostler(
    shell: Shell, lighthouse: Any
) -> None:
    shell.environment["PYTHONPATH"] = str(await asyncio.to_thread(installed, shell.folder))
    program = (PAGES / "process.md").read_text().partition("```python\n")[2].partition("```")[0]
    (shell.folder / "upper.py").write_text(program)
    settings = written("http-json.md").replace("http://127.0.0.1:9000", lighthouse.url)
    settings += written("process.md").replace("/srv/upper", str(shell.folder))
    settings += f'[connectors.beacon]\nconnector = "beacon-http"\nurl = "{lighthouse.url}"\n'
    settings += '[worker_types]\neverything = ["beacon", "lighthouse", "upper"]\n'
    (shell.folder / "hostler.toml").write_text(settings)

    listed = await asyncio.to_thread(shell.run, "connectors", "list", "--json")
    (beacon,) = (row for row in listed.last["items"] if row["name"] == "beacon-http")
    assert (beacon["source"], beacon["class"], beacon["kinds"]) == (
        "beacon-connector",
        "beacon:BeaconHttpConnector",
        ["beacon.embed"],
    )
    words = ("connectors", "check", "beacon", "--payload", '{"text": "x"}', "--wrong", "{}")
    checked = await asyncio.to_thread(shell.run, *words)
    assert checked.code == 0, checked.out

    arguments = ("up", "--data", "d", "--json", "--bind", "127.0.0.1:0", "--workers", "everything")
    log, errors = shell.folder / "up.log", shell.folder / "up.err"
    with log.open("w") as out, errors.open("w") as err:
        up = subprocess.Popen(
            shell.command(*arguments), cwd=shell.folder, env=shell.environment, stdout=out, stderr=err
        )
    try:
        url = str(await eventually(lambda: address(log, up, errors), within=60, every=0.1))
        async with hostler.connect(url) as fleet:
            for kind, payload, result in (
                ("beacon.embed", {"text": "four"}, {"vector": [4.0, 0.5]}),
                ("lighthouse.embed", {"text": "seven ä"}, [7, 0.5]),
                ("lighthouse.tell", {"text": "ö", "words": 2}, {"text": "ö0 ö1 "}),
                ("text.upper", {"text": "grüß"}, {"text": "GRÜSS"}),
            ):
                job = await eventually(lambda kind=kind, payload=payload: known(fleet, kind, payload), within=20)
                assert await job.result() == result
    finally:
        up.terminate()
        await asyncio.to_thread(up.wait, 30)


def address(log: Path, up: subprocess.Popen[bytes], errors: Path) -> str | None:
    """Return where the gateway listens, once everything is ready."""
    assert up.poll() is None, errors.read_text()[-3000:]
    said = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return next((line["url"] for line in said if line.get("event") == "ready"), None)


async def known(fleet: Fleet, kind: str, payload: Any) -> JobHandle:
    """Submit as soon as the kind is known: a worker makes its kinds known when it starts."""
    try:
        return await fleet.submit(kind, payload)
    except UnknownKindError as error:
        raise AssertionError(error.message) from None
