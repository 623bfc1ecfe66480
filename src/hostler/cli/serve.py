"""`hostler serve`: AI services that Hostler runs itself."""

import asyncio
import contextlib
import ipaddress
import os
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from cyclopts.types import ExistingFile

from hostler.cli.children import stop_requested, tether
from hostler.cli.config import load
from hostler.cli.flags import Common, Tethered
from hostler.cli.output import OK, Out
from hostler.kernel.errors import AddressInUseError, SettingsError
from hostler.kernel.spec import CONVENTIONAL_PORTS
from hostler.providers.nlp.catalogue import judge_packages, nlp_providers
from hostler.providers.service import ProviderService, ServiceSettings
from hostler.telemetry.logs import configure

serve = App(name="serve", help="Run an AI service of Hostler's own.")
NLP_PORT = CONVENTIONAL_PORTS["nlp"]


@serve.command(name="nlp")
async def nlp(
    *,
    host: Annotated[str, Parameter(help="Address to listen on; beyond loopback it needs --key-env.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port; 0 takes any free one.")] = NLP_PORT,
    providers: Annotated[
        tuple[str, ...], Parameter(name="--provider", help="Serve this provider; all unless given.", negative="")
    ] = (),
    preload: Annotated[
        tuple[str, ...], Parameter(help="Load this provider at the start, not at its first use.", negative="")
    ] = (),
    corpus: Annotated[
        ExistingFile | None,
        Parameter(help="Text to learn from: UTF-8, one document a line; gensim's own unless given."),
    ] = None,
    key_env: Annotated[str | None, Parameter(help="Variable that holds the key which callers must send.")] = None,
    wait: Annotated[float, Parameter(help="Seconds that a question waits for a load, unless it says.")] = 10.0,
    within: Annotated[float, Parameter(help="Longest answer, in seconds.")] = 60.0,
    grace: Annotated[float, Parameter(help="Seconds that questions may go on when it ends.")] = 10.0,
    tethered: Tethered = False,
    common: Common = Common(),
) -> int:
    """Serve language: word vectors, topics, times, keywords, spelling."""
    configure(load({}, config=common.config).settings.log, role="nlp")
    chosen = nlp_providers(corpus, only=providers)
    unknown = sorted(set(preload) - {provider.name for provider in chosen})
    if unknown:
        raise SettingsError(f"--preload: {', '.join(unknown)} is not served")
    judge_packages(chosen)
    limits = {"host": host, "port": port, "wait": wait, "within": within, "grace": grace}
    settings = _judged({**limits, "key": _key(key_env, host=host)})
    out = Out(json=common.json)
    if tethered:
        tether()
    stop = await stop_requested()
    service = ProviderService(chosen, settings)
    try:
        async with service:
            loading = asyncio.create_task(service.preload(preload), name="preload")
            out.answer({"event": "ready", "url": service.url, "pid": os.getpid()}, f"ready: {service.url}")
            await stop.wait()
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loading
    except OSError as error:
        if service.url:
            raise
        raise AddressInUseError(f"port {port} cannot be used ({error.strerror}): name another with --port") from error
    out.answer({"event": "stopped"}, "stopped")
    return OK


def _judged(limits: dict[str, Any]) -> ServiceSettings:
    try:
        return msgspec.convert(limits, ServiceSettings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"hostler serve nlp: {error}") from error


def _key(variable: str | None, *, host: str) -> str | None:
    """Return the key; `SettingsError` when its variable is empty, or when anybody could reach a service without one."""
    if variable is not None:
        key = os.environ.get(variable)
        if not key:
            raise SettingsError(f"--key-env: the variable {variable} is not set")
        return key
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return None
    if host == "localhost":
        return None
    raise SettingsError(f"--host {host} lets others in: name the variable of a key with --key-env")
