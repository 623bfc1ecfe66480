"""Drives any service that speaks JSON over HTTP, as its configuration describes it: no code."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.direct import DirectCalls
from hostler.connectors.faults import ServiceFaultError, failure, off_protocol
from hostler.connectors.follow import Follower
from hostler.connectors.health import expect_no_page, probe_failure, service_unavailable
from hostler.connectors.schemas import parse_options
from hostler.connectors.services.generic.answers import Document, accepted, read_document
from hostler.connectors.services.generic.declared import Types
from hostler.connectors.services.generic.description import Capabilities, HttpJsonOptions, HttpKind
from hostler.connectors.services.generic.pointers import find_all, number_at, text_at
from hostler.connectors.services.generic.work import Exchange, JsonWork, Ready, altering, ready
from hostler.connectors.stages import Stages
from hostler.connectors.transports.http import Answer, HttpTransport
from hostler.connectors.transports.http_cache import HttpCache
from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.offer import Pool
from hostler.contracts.queue import KindSpec
from hostler.contracts.service import (
    EndpointState,
    Failed,
    Finished,
    Probe,
    RemoteRef,
    RemoteState,
    ServiceCall,
    ServiceCapabilities,
    Step,
)

ALIVE: Final = frozenset({RemoteState.PENDING, RemoteState.RUNNING, RemoteState.SUCCEEDED})


class HttpJsonConnector:
    """Connector `http-json`: kinds, requests, states and errors are those of its options.

    A kind whose answer names the accepted work is followed, taken over, cancelled and released by the requests of
    `work`; any other is one request, and closing its connection cancels it.
    """

    name: str = "http-json"
    service: str = "http-json"

    def __init__(self, config: ConnectorConfig) -> None:
        """Take one endpoint; `InvalidError` that says what to write for a description that cannot work."""
        self.endpoint = config.endpoint
        self._config = config
        self._options = parse_options(config.options, HttpJsonOptions, connector=self.name)
        self.service = self._options.service or self.name
        self._kinds = {kind.name: kind for kind in self._options.kinds}
        self._types = {kind.name: Types(kind) for kind in self._options.kinds}
        self._http = HttpTransport(
            config.url, settings=config.http, api_key=config.api_key, connect=self._options.timeout
        )
        self._cache = HttpCache(self._options.http_cache_size)
        self._calls = DirectCalls()

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._calls.close()
        await self._http.__aexit__(kind, value, trace)

    def kinds(self) -> tuple[KindSpec, ...]:
        """Return the kinds that the options declare."""
        return tuple(kind.spec(service=self.service, connector=self.name) for kind in self._options.kinds)

    async def probe(self) -> Probe:
        """Ask the health path."""
        health = self._options.health
        try:
            answer = await self._get(health.path)
            told = health.statuses.get(str(answer.status))
            if told is not None:
                return Probe(state=told, message=f"the service answered {answer.status}", slots=self._config.slots)
            document = self._health(answer)
        except ServiceFaultError as error:
            return probe_failure(error)
        value = None if document is None else document.value
        word = text_at(value, health.state)
        state = EndpointState.READY if health.state is None else health.states.get(word or "", EndpointState.UNKNOWN)
        return Probe(
            state=state,
            message=text_at(value, health.message) or f"the service says {word or answer.status}",
            version=text_at(value, health.version),
            slots=self._config.slots or _count(value, health.slots),
            busy=_count(value, health.busy),
        )

    def _health(self, answer: Answer) -> Document | None:
        """Return what a good health answer says; an HTML page is somebody else's."""
        health = self._options.health
        if not answer.ok:
            accepted(answer, self._options.errors)
        pointers = (health.state, health.message, health.version, health.slots, health.busy)
        if any(pointer is not None for pointer in pointers):
            return read_document(answer.body, what="a health answer")
        expect_no_page(answer)
        return None

    async def capabilities(self) -> ServiceCapabilities:
        """Ask the path of capabilities; without one, ask whether it is well, and say what the options say."""
        options, asked = self._options, self._options.capabilities
        value = None
        try:
            if asked is not None:
                value = accepted(await self._get(asked.path), options.errors).value
            else:
                self._health(await self._get(options.health.path))
        except ServiceFaultError as error:
            raise service_unavailable(self.endpoint, error) from error
        models = options.models if asked is None or asked.models is None else _words(value, asked.models)
        version = None if asked is None else text_at(value, asked.version)
        slots = self._config.slots or (None if asked is None else _count(value, asked.slots))
        return ServiceCapabilities(
            kinds=self._served(asked, value),
            models=models,
            models_known=bool(models) or (asked is not None and asked.models is not None),
            labels={**_labels(asked, value), **self._config.labels},
            versions={} if version is None else {self.service: version},
            pools={} if slots is None else {"slots": Pool(id=f"{self.endpoint}/slots", total=slots)},
        )

    def _served(self, asked: Capabilities | None, value: object) -> tuple[str, ...]:
        if asked is None or asked.kinds is None:
            return tuple(self._kinds)
        told = _words(value, asked.kinds)
        return tuple(kind for kind in self._kinds if kind in told)

    async def submit(self, call: ServiceCall) -> RemoteRef | Finished | Failed:
        """Judge the payload, then hand the work over, or begin the request that is the work, unless that is known."""
        try:
            kind = self._kinds.get(call.kind)
            if kind is None:
                return Failed(failure=failure(FailureClass.INVALID_INPUT, f"{self.name} has no kind {call.kind}"))
            asked, stages = self._asked(call, kind), Stages.of(call)
            if kind.id is not None:
                return await self._hand_over(call, kind, asked, stages)
        except ServiceFaultError as error:
            return Failed(failure=error.failure)
        exchange = Exchange(self._http, self._cache, stages, asked, kind=kind, options=self._options)
        known = None if kind.caching is None else exchange.remembered()
        return known or self._calls.start(call, exchange.run)

    def remembered(self, call: ServiceCall) -> Finished | None:
        """Return the result of a read whose answer is kept and may be given again now."""
        kind = self._kinds.get(call.kind)
        if kind is None or kind.caching is None:
            return None
        try:
            asked = self._asked(call, kind)
        except ServiceFaultError:
            return None
        exchange = Exchange(self._http, self._cache, Stages.of(call), asked, kind=kind, options=self._options)
        return exchange.remembered()

    def _asked(self, call: ServiceCall, kind: HttpKind) -> Ready:
        """Return the request of a call whose payload is judged."""
        self._types[kind.name].judge_payload(call.payload)
        return ready(kind.submit, {"payload": call.payload, "job": call.job_id, "fence": call.fence, "kind": call.kind})

    async def _hand_over(self, call: ServiceCall, kind: HttpKind, asked: Ready, stages: Stages) -> RemoteRef:
        limit, _, _ = stages.left(Stage.CONNECT)
        with altering(self._cache, asked):
            answer = await self._http.call(
                asked.method,
                asked.path,
                headers=asked.headers,
                body=asked.body,
                within=self._options.timeout if limit is None else limit,
            )
        found = accepted(answer, self._options.errors)
        told = text_at(found.value, kind.id)
        if not told:
            raise off_protocol(f"the service accepted the work and names none at {kind.id}", status=answer.status)
        return RemoteRef(id=told, job_id=call.job_id, fence=call.fence)

    async def observe(self, call: ServiceCall, ref: RemoteRef) -> AsyncGenerator[Step]:
        """Follow the work to its end."""
        work = self._work(ref, kind=call.kind)
        if work is None:
            async with aclosing(self._calls.observe(ref)) as steps:
                async for step in steps:
                    yield step
            return
        poll = 1.0 if self._options.work is None else self._options.work.poll
        async with aclosing(Follower(work, Stages.of(call), poll=poll).steps()) as steps:
            async for step in steps:
                yield step

    async def reconcile(self, ref: RemoteRef) -> RemoteState:
        """Ask about accepted work, and take it over where the service can be told; else what this process knows."""
        work = self._work(ref)
        if work is None:
            return self._calls.state(ref)
        try:
            signal = await work.status()
            if signal.state in ALIVE:
                await work.take_over()
        except ServiceFaultError:
            return RemoteState.UNKNOWN
        return signal.state

    async def fetch(self, ref: RemoteRef) -> Finished | Failed:
        """Return how the work ended."""
        work = self._work(ref)
        if work is None:
            return self._calls.outcome(ref)
        try:
            return await work.outcome()
        except ServiceFaultError as error:
            return Failed(failure=error.failure)

    async def cancel(self, ref: RemoteRef) -> bool:
        """Tell accepted work to stop; close the connection of any other."""
        work = self._work(ref)
        if work is None:
            return await self._calls.cancel(ref)
        try:
            return await work.stop()
        except ServiceFaultError:
            return False

    async def release(self, ref: RemoteRef) -> None:
        """Let service and connector forget the work."""
        work = self._work(ref)
        if work is None:
            await self._calls.release(ref)
            return
        try:
            await work.release()
        except ServiceFaultError:
            return

    def _work(self, ref: RemoteRef, *, kind: str | None = None) -> JsonWork | None:
        """Return accepted work; None for work that is a request of this process."""
        follow = self._options.work
        if follow is None or not ref.heritable:
            return None
        fitting = [one.name for one in self._options.kinds if one.id is not None and kind in {None, one.name}]
        types = tuple(self._types[name] for name in fitting)
        return JsonWork(self._http, self._cache, ref, options=self._options, follow=follow, types=types)

    async def _get(self, path: str) -> Answer:
        return await self._http.call("GET", path, within=self._options.timeout)


def _count(value: object, pointer: str | None) -> int | None:
    number = number_at(value, pointer)
    return None if number is None or number < 0 else int(number)


def _words(value: object, pointer: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in find_all(value, pointer) if isinstance(word, str) and word))


def _labels(asked: Capabilities | None, value: object) -> dict[str, str]:
    if asked is None:
        return {}
    found = {name: text_at(value, pointer) for name, pointer in asked.labels.items()}
    return {name: word for name, word in found.items() if word is not None}
