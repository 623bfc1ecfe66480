"""Conversations on several llama.cpp servers: how much of their prompts is known from the turns before.

`python -m benchmarks.conversations [--talks N] [--turns N] [--rounds N]` (extra `demo`). A server keeps the prompts
that it saw last, so a turn is cheap where the turns before it ran. Every way has the same conversations, behind one
system message, on servers that begin empty; the servers say how many tokens of each prompt they knew. Round robin and
least busy send at once, as a load balancer does; Hostler runs once with its sessions and once without.
"""

import argparse
import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
from msgspec import Struct

from hostler.connectors.catalogue import build
from hostler.connectors.chat import CHAT
from hostler.contracts.queue import KindSpec
from hostler.kernel.settings import LogSettings
from hostler.telemetry.logs import configure
from hostler.testing.engine_fabric import own_fabric
from hostler.testing.llama import LlamaServer, write_model

SERVERS, SLOTS, CONTEXT, TOKENS = 4, 4, 4096, 16
WAYS: Final = ("round robin", "least busy", "Hostler, no sessions", "Hostler")
SYSTEM = {"role": "system", "content": "You answer in a few words, and you never say what you were told before. " * 3}
PAUSE = 0.4
"""Longest pause in seconds before a turn."""

Ask = Callable[[list[dict[str, str]]], Awaitable[dict[str, Any]]]
"""Asks for the next answer; returns its text as `text`, and `usage` as the server says it."""


class Turn(Struct, frozen=True, kw_only=True):
    """One turn: what its prompt had, what was known of it."""

    tokens: int
    known: int
    again: int
    """Tokens of the turn before: what could have been known."""


def words(dice: random.Random, count: int) -> str:
    """Return so many words that no other conversation has."""
    return " ".join("".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(count))


async def talk(ask: Ask, seed: str, turns: int) -> list[Turn]:
    """Hold one conversation."""
    dice, messages, found = random.Random(seed), [SYSTEM], list[Turn]()
    before = 0
    for turn in range(turns):
        await asyncio.sleep(dice.uniform(0, PAUSE))
        messages.append({"role": "user", "content": words(dice, 12 if turn else 40)})
        answer = await ask(messages)
        messages.append({"role": "assistant", "content": answer["text"]})
        usage = answer["usage"]
        tokens, known = usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]
        found.append(Turn(tokens=tokens, known=known, again=before))
        before = tokens
    return found


def balancer(session: aiohttp.ClientSession, urls: list[str], choose: Callable[[list[int]], int]) -> Ask:
    """Send each turn to the server that is chosen by what every one has under way."""
    flying = [0] * len(urls)

    async def ask(messages: list[dict[str, str]]) -> dict[str, Any]:
        index = choose(flying)
        flying[index] += 1
        body = {"messages": messages, "max_tokens": TOKENS}
        async with session.post(f"{urls[index]}/v1/chat/completions", json=body) as answer:
            found = await answer.json()
        flying[index] -= 1
        return {"text": found["choices"][0]["message"]["content"], "usage": found["usage"]}

    return ask


async def fabric_of(stack: AsyncExitStack, urls: list[str], *, sessions: bool) -> Ask:
    """Submit each turn as a job to one worker with all servers."""
    fabric = await stack.enter_async_context(own_fabric())
    if not sessions:
        await fabric.ports.foreman.declare_kind(KindSpec(name=CHAT, queue="chat", service="openai", affinity=()))
    connectors = [build("openai-http", url=url) for url in urls]
    await stack.enter_async_context(fabric.worker(connectors=connectors, slots=SERVERS * SLOTS))

    async def ask(messages: list[dict[str, str]]) -> dict[str, Any]:
        job = await fabric.submit(CHAT, {"messages": messages, "max_tokens": TOKENS})
        return await fabric.result(job, within=600.0)

    return ask


async def measure(way: str, model: Path, talks: int, turns: int, seed: int) -> str:
    """Hold all conversations one way on servers of their own, and return a row of the table."""
    async with AsyncExitStack() as stack:
        servers = [LlamaServer(model=model, slots=SLOTS, context=CONTEXT) for _ in range(SERVERS)]
        urls = [(await stack.enter_async_context(server)).url for server in servers]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        if way == "round robin":
            rounds = iter(range(talks * turns))
            ask = balancer(session, urls, lambda flying: next(rounds) % len(flying))
        elif way == "least busy":
            ask = balancer(session, urls, lambda flying: flying.index(min(flying)))
        else:
            ask = await fabric_of(stack, urls, sessions=way == "Hostler")
        found = await asyncio.gather(*(talk(ask, f"{seed}/{number}", turns) for number in range(talks)))
        shares = [await prompts(session, url) for url in urls]
    all_ = [turn for one in found for turn in one]
    tokens, known, again = (sum(getattr(turn, name) for turn in all_) for name in ("tokens", "known", "again"))
    computed = (tokens - known) / len(all_)
    spread = f"{min(shares) / sum(shares):.0%} to {max(shares) / sum(shares):.0%}"
    return f"| {seed} | {way} | {known / tokens:.0%} | {again / tokens:.0%} | {computed:.0f} | {spread} |"


async def prompts(session: aiohttp.ClientSession, url: str) -> float:
    """Return how many tokens one server made: all answers are of one length."""
    async with session.get(f"{url}/metrics") as answer:
        text = await answer.text()
    (line,) = [line for line in text.splitlines() if line.startswith("llamacpp:tokens_predicted_total ")]
    return float(line.split()[1])


async def run(talks: int, turns: int, rounds: int) -> None:
    """Measure all ways, round by round, and print one table."""
    with tempfile.TemporaryDirectory(prefix="hostler-talks-") as name:
        model = write_model(Path(name) / "noise.gguf", context=CONTEXT)
        print("| round | way | known | could be known | computed a turn | turns a server |")
        print("|---|---|---|---|---|---|", flush=True)
        for seed in range(1, rounds + 1):
            for way in WAYS:
                print(await measure(way, model, talks, turns, seed), flush=True)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--talks", type=int, default=12)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    configure(LogSettings(level="error"), role="bench")
    asyncio.run(run(asked.talks, asked.turns, asked.rounds))


if __name__ == "__main__":
    main()
