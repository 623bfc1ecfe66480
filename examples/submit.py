"""Submit a job, follow it, and print its result: needs `hostler up --handlers handlers` in this folder."""

import asyncio

import hostler


async def main() -> None:
    """Speak to the gateway on this machine."""
    async with hostler.connect() as fleet:
        job = await fleet.submit("text.count", {"text": "a lighthouse at dusk"})
        async for step in job.follow():
            print(step)
        print(await job.result())


if __name__ == "__main__":
    asyncio.run(main())
