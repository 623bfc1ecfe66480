"""The engine's own processor time for one job's life: submit, claim and settle in a loop inside the server.

`python -m benchmarks.claim_warm`. Client, socket and log are left out, and processor time of the server is read
instead of the clock, so other work on the machine disturbs it less; `INFO commandstats` counts waiting, too.
"""

import random
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec
import uvloop

from benchmarks.claim_path import fill, job, offer, queue, settle_all
from hostler.broker.engine_submit import submit_jobs
from hostler.broker.records import sealed
from hostler.testing.bench import Bench
from hostler.valkeyio.layout import RECORD
from hostler.valkeyio.library_text import shipped

BACKLOG = 20_000
ROUNDS = 8
DICE = random.Random(7)

LOOP = """
redis.register_function{function_name='warm', callback=function(keys, argv)
  local given, n, reps = cmsgpack.unpack(argv[1]), tonumber(argv[2]), tonumber(argv[3])
  local words, times = given[2], {{}, {}, {}}
  local function timed(which, verb, these)
    local from = os.clock()
    local reply = verb(keys, these)
    table.insert(times[which], (os.clock() - from) * 1000000)
    return reply
  end
  for i = 1, reps do
    local jobs = given[1][(i - 1) % #given[1] + 1]
    jobs[3], words[9] = cmsgpack.pack({argv[4] .. 's' .. i, n}), argv[4] .. 'c' .. i
    timed(1, verb_submit, jobs)
    local items = {}
    for k, one in ipairs(timed(2, verb_claim, words)[5]) do
      items[k] = {one[1], cmsgpack.unpack(one[2])[FENCE], 1, false, false, 0, 0, given[4], false, false, false}
    end
    if #items ~= n then
      error('claimed ' .. #items)
    end
    if timed(3, verb_settle, {given[3][1], cmsgpack.pack(items), given[3][3]})[1] ~= 1 then
      error('an ending was refused')
    end
  end
  local least = {}
  for which, list in ipairs(times) do
    table.sort(list)
    least[which] = math.floor(list[math.ceil(#list / 10)])
  end
  return least
end}
""".replace("FENCE", str(RECORD.index("fence") + 1))


async def record(bench: Bench, batch: int) -> list[list[Any]]:
    """Return the words of some submits, of a claim and of a settle, as this Hostler sends them."""
    sent: list[tuple[Any, ...]] = []
    client = bench.engine.client
    plain = cast("Callable[..., Coroutine[Any, Any, Any]]", client.execute_command)  # pyright: ignore[reportUnknownMemberType] - the library does not type its replies

    async def note(*words: Any, **options: Any) -> Any:
        sent.append(words)
        return await plain(*words, **options)

    client.execute_command = note  # pyright: ignore[reportAttributeAccessIssue] - only this object notes what it sends
    submits: list[list[Any]] = []
    for _ in range(20):
        jobs = [job(DICE.randrange(100), DICE.randrange(20)) for _ in range(batch)]
        await submit_jobs(bench.library, bench.queue, jobs, bench.operation())
        submits.append(list(sent[-1][4:]))
    request = bench.request(batch, offers=[offer(20)], slots=100_000)
    leases = await bench.broker.claim(request, operation=bench.operation())
    claim = list(sent[-1][4:])
    await settle_all(bench, leases)
    client.execute_command = plain  # pyright: ignore[reportAttributeAccessIssue] - as above
    return [submits, claim, list(sent[-1][4:])]


def text(word: object) -> msgspec.Raw:
    """Return one word as the engine would hand it to a function."""
    return sealed(word if isinstance(word, bytes) else str(word).encode())


async def main() -> None:
    """Print one row per batch size: of each verb the time that nine in ten calls exceed, the best of some rounds."""
    print("| batch | submit us | claim us | settle us | engine us per life |\n|---|---|---|---|---|")
    async with queue() as bench:
        await fill(bench, BACKLOG, lanes=20, tenants=100)
        for batch in (1, 16, 64):
            submits, claim, settle = await record(bench, batch)
            await bench.command("FUNCTION", "LOAD", "REPLACE", shipped().text + LOOP)
            given = msgspec.msgpack.encode(
                [
                    [[text(word) for word in one] for one in submits],
                    [text(word) for word in claim],
                    [text(word) for word in settle],
                    text(msgspec.msgpack.encode((b"1", False))),
                ]
            )
            rounds = [
                await bench.command("FCALL", "warm", 1, f"h:{{{bench.queue}}}:meta", given, batch, 40, f"{batch}-{n}")
                for n in range(ROUNDS)
            ]
            least = [min(times) for times in zip(*rounds, strict=True)]
            print(f"| {batch} | {least[0]} | {least[1]} | {least[2]} | {sum(least) / batch:.0f} |", flush=True)
            await bench.command("FUNCTION", "LOAD", "REPLACE", shipped().text)


if __name__ == "__main__":
    uvloop.run(main())
