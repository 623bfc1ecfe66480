"""A provider whose every step is in a test's hand, and a service to ask."""

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from hostler.kernel.errors import MissingExtraError
from hostler.providers.messages import Ask, ExpandAnswer, ExpandAsk, Reply, Term, Verb
from hostler.providers.provider import Halt, Loading, Provider
from hostler.providers.service import ProviderService, ServiceSettings


class Gate:
    """A door in a thread: closed until a test opens it; work that waits there heeds its halt."""

    def __init__(self, *, open_: bool = True) -> None:
        self._event = threading.Event()
        self.reached = threading.Event()
        if open_:
            self._event.set()

    def open(self) -> None:
        self._event.set()

    def close(self) -> None:
        self._event.clear()

    def pass_(self, halt: Halt) -> None:
        self.reached.set()
        while not self._event.wait(0.02):
            halt.check()


class Scripted:
    """A provider that loads and answers when its gates are open, and counts what it does."""

    about = "scripted"
    verbs: tuple[Verb, ...] = (Verb.EXPAND,)

    def __init__(self, name: str, *, slots: int = 2, fails: int = 0, missing: bool = False) -> None:
        self.name = name
        self.slots = slots
        self.loading, self.answering = Gate(), Gate()
        self.loads = self.closes = self.halted = self.answers = 0
        self.breaks = False
        self._fails = fails
        self._missing = missing

    def load(self, loading: Loading) -> None:
        self.loads += 1
        if self._missing:
            raise MissingExtraError("numbers is absent; run: pip install 'hostler[numbers]'")
        if self._fails:
            self._fails -= 1
            raise OSError("the disk is gone")
        loading.step("training", "epoch 3 of 12", fraction=0.25)
        self.loading.pass_(loading)

    def answer(self, ask: Ask, halt: Halt) -> Reply:
        assert isinstance(ask, ExpandAsk)
        self.answers += 1
        try:
            self.answering.pass_(halt)
        except BaseException:
            self.halted += 1
            raise
        if self.breaks:
            raise RuntimeError("a wheel came off")
        return ExpandAnswer(terms=(Term(term=ask.concept, score=1.0),))

    def memory(self) -> int | None:
        return 4096

    def close(self) -> None:
        self.closes += 1


class Asked:
    """A service, and what it answers."""

    def __init__(self, service: ProviderService, http: aiohttp.ClientSession) -> None:
        self.service = service
        self._http = http

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        async with self._http.post(self.service.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(), dict(answer.headers)

    async def expand(
        self, provider: str, concept: str = "x", **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        return await self.post(f"/providers/{provider}/expand", {"concept": concept}, **headers)

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self._http.get(self.service.url + path) as answer:
            return answer.status, await answer.json()

    async def text(self, path: str) -> str:
        async with self._http.get(self.service.url + path) as answer:
            return await answer.text()


Start = Callable[..., Awaitable[Asked]]


@pytest.fixture
async def start() -> AsyncGenerator[Start]:
    """Start a service of these providers; all end with the test."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def begin(*providers: Provider, **settings: Any) -> Asked:
            settings.setdefault("grace", 0.2)
            service = ProviderService(providers, ServiceSettings(**settings))
            return Asked(await stack.enter_async_context(service), http)

        yield begin


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted
