"""`hostler cache`: results that are kept for equal jobs."""

from typing import Annotated

from cyclopts import App, Parameter

from hostler.cli.flags import ToGateway
from hostler.cli.output import OK, Out
from hostler.cli.talk import talking

cache = App(name="cache", help="Show and clear the results that are kept for equal jobs.")


@cache.command
async def show(*, common: ToGateway = ToGateway()) -> int:
    """Show how much is kept, and each kind's hit rate."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.cache.view()
    if out.json:
        out.document(found)
        return OK
    rows = [(row.kind, f"{row.hit_rate:.0%}", row.hits, row.misses, row.waits, row.kept) for row in found.kinds]
    out.table(("kind", "hit rate", "hits", "misses", "waits", "kept"), rows, empty="no kind with a cache had a job")
    out.say(f"{found.entries} results, {found.bytes} bytes")
    return OK


@cache.command
async def clear(
    prefix: Annotated[str, Parameter(help="Drop results whose key begins so: image.generate: is a whole kind.")],
    /,
    *,
    common: ToGateway = ToGateway(),
) -> int:
    """Drop results by what their keys begin with; '' is everything."""
    async with talking(common) as fleet:
        dropped = await fleet.cache.clear(prefix)
    Out(json=common.json).answer({"dropped": dropped}, f"{dropped} results are dropped")
    return OK
