"""`hostler limits`: what is used of the limits that all processes share, and what is held."""

from typing import Annotated

from cyclopts import App, Parameter

from hostler.cli.flags import ToGateway
from hostler.cli.output import FAILED, OK, Out
from hostler.cli.talk import talking
from hostler.contracts.limit import LimitView

limits = App(name="limits", help="Show the limits that all processes share, and lift what holds calls.")


@limits.command(name="list")
async def list_(*, common: ToGateway = ToGateway()) -> int:
    """List limits in use: how much is left, until when it is whole again, and what is held."""
    out = Out(json=common.json)
    async with talking(common) as fleet:
        found = await fleet.limits.list()
    if out.json:
        out.document({"items": found})
        return OK
    rows = [(one.name, one.text, _left(one), _seconds(one.whole_s), _seconds(one.held_s), one.leases) for one in found]
    head = ("limit", "is", "left", "whole in", "held for", "under way")
    out.table(head, rows, empty="no limit is in use, and nothing is held")
    return OK


@limits.command
async def lift(
    name: Annotated[str, Parameter(help="As `hostler limits list` shows it; an endpoint's own is its id.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; it is kept with the event.")] = "",
    common: ToGateway = ToGateway(),
) -> int:
    """Let calls go again that a service's word (429, a reset time) holds; what was used stays used."""
    async with talking(common) as fleet:
        lifted = await fleet.limits.lift(name, reason=reason)
    free = f"nothing holds {name!r} now; `hostler limits list` shows what is held"
    words = f"{name} is not held any more" if lifted else free
    Out(json=common.json).answer({"lifted": lifted}, words)
    return OK if lifted else FAILED


def _left(one: LimitView) -> str:
    return "" if one.left is None else f"{one.left:g} {one.unit or 'calls'}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds else ""
