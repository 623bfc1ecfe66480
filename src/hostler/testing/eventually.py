"""Waiting for facts instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")


async def eventually(check: Callable[[], T | Awaitable[T]], *, within: float = 5.0, every: float = 0.01) -> T:
    """Call `check` until it returns something true, and return that.

    `within` and `every` are seconds. An `AssertionError` of `check` counts as *not yet*; when time is up
    the last one is raised again, or a new one that shows the last value.
    """
    ends = time.monotonic() + within
    while True:
        failure: AssertionError | None = None
        value: T | None = None
        try:
            found = check()
            value = cast("T", await found) if inspect.isawaitable(found) else cast("T", found)
            if value:
                return value
        except AssertionError as error:
            failure = error
        if time.monotonic() >= ends:
            raise failure or AssertionError(f"not true within {within} s; last value: {value!r}")
        await asyncio.sleep(every)
