"""Everything that the demo runs, as processes: two simulated services, llama.cpp, the gateway, three workers."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from hostler.cli.children import Child, Children, ChildSpec, kill_group
from hostler.cli.demo.verdict import Kill
from hostler.kernel.units import Seconds
from hostler.testing.llama import LlamaServer
from hostler.testing.sims.effects import Effect

SIMULATORS: Final = ("studio-a", "studio-b")
WORKERS: Final = 3
SLOTS: Final = 10
"""Of one worker; its services' own slots bound what it really gets."""
READY_WITHIN: Final[Seconds] = 45.0
TROUBLE: Final = ("--fail", "internal_error=0.04", "--missed", "0.03", "--drop", "0.03", "--health-failures", "0.04")
"""What the simulated services do wrong, on purpose."""


class Stage:
    """`async with` starts everything and ends it; `folder` holds the engine's data, settings, logs and effects."""

    def __init__(self, folder: Path, report: Callable[[Mapping[str, Any]], None], *, seed: int) -> None:
        self.folder = folder
        self.url = ""
        self._report = report
        self._seed = seed
        self._stack = AsyncExitStack()
        self._children: Children | None = None
        self._workers: dict[Child, str] = {}

    @property
    def data(self) -> Path:
        """The engine's folder."""
        return self.folder / "data"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            children = await stack.enter_async_context(Children(self._report, grace=15.0))
            self._children = children
            llama = LlamaServer(slots=2, context=512)
            await asyncio.to_thread(self._write_settings, {})
            gateway = await children.start(self._spec("gateway", "gateway", "--bind", "127.0.0.1:0", *self._common()))
            simulators, _, said = await asyncio.gather(
                self._simulators(children),
                stack.enter_async_context(llama),
                children.ready(gateway, within=READY_WITHIN),
            )
            self.url = said["url"]
            await asyncio.to_thread(self._write_settings, {**simulators, "chat": llama.url})
            self._report({"event": "services", **simulators, "llama.cpp": llama.url, "gateway": self.url})
            workers = [
                await children.start(self._spec(f"worker-{number}", *self._worker(), *self._common()))
                for number in range(1, WORKERS + 1)
            ]
            for worker in workers:
                self._workers[worker] = (await children.ready(worker, within=READY_WITHIN))["worker"]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def workers(self) -> tuple[str, ...]:
        """Ids of the first workers, oldest first."""
        return tuple(self._workers.values())

    def kill(self, worker: str) -> Kill:
        """Kill a worker without a word; another is started in its place."""
        child = next(child for child, name in self._workers.items() if name == worker)
        at = datetime.now(UTC)
        kill_group(child)
        self._report({"event": "killed", "name": child.spec.name, "worker": worker})
        return Kill(worker=worker, at=at)

    async def effects(self) -> list[list[Effect]]:
        """Read what the simulated services really did."""
        return [await asyncio.to_thread(_read, self._effects(name)) for name in SIMULATORS]

    async def _simulators(self, children: Children) -> dict[str, str]:
        started = {
            name: await children.start(
                self._spec(
                    name, "sim", "http", "--port", "0", "--slots", "8", "--seed", str(self._seed + number), *TROUBLE,
                    "--effects", str(self._effects(name)), "--json",
                )
            )
            for number, name in enumerate(SIMULATORS)
        }  # fmt: skip
        return {name: (await children.ready(child, within=READY_WITHIN))["url"] for name, child in started.items()}

    def _spec(self, name: str, *arguments: str) -> ChildSpec:
        return ChildSpec(name=name, arguments=arguments, log=self.folder / f"{name}.log", bare=True)

    def _common(self) -> tuple[str, ...]:
        return ("--data", str(self.data), "--config", str(self.folder / "hostler.toml"), "--json")

    def _worker(self) -> tuple[str, ...]:
        names = ",".join((*SIMULATORS, "chat"))
        return ("worker", "--connectors", names, "--handlers", "hostler.cli.demo.handlers", "--slots", str(SLOTS))

    def _effects(self, name: str) -> Path:
        return self.folder / f"{name}.effects.ndjson"

    def _write_settings(self, urls: Mapping[str, str]) -> None:
        lines: list[str] = []
        for name, url in urls.items():
            connector = "openai-http" if name == "chat" else "simulation-http"
            lines += [f"[connectors.{name}]", f'connector = "{connector}"', f'url = "{url}"']
        (self.folder / "hostler.toml").write_text("\n".join(lines) + "\n")


def _read(path: Path) -> list[Effect]:
    return [msgspec.json.decode(line, type=Effect) for line in path.read_bytes().splitlines()]
