"""Pages of lists that are short enough to be read whole."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from hostler.gateway.shapes import PageQuery

T = TypeVar("T")


def page_of(items: Sequence[T], query: PageQuery, *, key: Callable[[T], str]) -> tuple[list[T], str | None]:
    """Return one page in the order of `key`, and the cursor of the next: the last key of this one."""
    ordered = sorted((item for item in items if query.cursor is None or key(item) > query.cursor), key=key)
    page = ordered[: query.limit]
    return page, key(page[-1]) if len(ordered) > len(page) else None
