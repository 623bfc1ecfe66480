"""Which jobs run apart, so that poison is told from what only ran beside it.

A worker that dies loses every lease it held, and each loss counts for its job: nobody saw which of them did it. What
was lost together would come back together and be charged again, until all of it is dead as poison. So a job that lost
a worker is a suspect from then on, and a worker that holds one is given no second one for a while: a short one where
both have losses left, for the work is to go on; a long one where one loss more ends either of them. What ends with its
last worker has then taken it down without another suspect beside it.

The engine decides it in the claim itself (`functions/_9_apart.lua`); this is the same rule for the worker, which says
what it holds over all queues, and for the model.
"""

from typing import Final

from hostler.contracts.lease import Suspicion
from hostler.kernel.units import Seconds

SOON: Final[Seconds] = 1.0
"""How long a suspect waits for a worker that holds none: no more of the time in which lost work is to go on."""
LATE: Final[Seconds] = 30.0
"""How long it does where one more loss ends it, or the one that the worker holds."""
PASSED_MOST: Final = 64
"""Suspects that one claim passes over; those behind them are taken as they come."""


def suspicion(crashes: int, crashes_max: int) -> Suspicion:
    """Return how suspicious a job is that lost so many workers, and may lose `crashes_max`."""
    if not crashes:
        return Suspicion.NONE
    return Suspicion.LAST if crashes + 1 >= crashes_max else Suspicion.SUSPECT


def apart(held: Suspicion, job: Suspicion) -> Seconds:
    """Return how long a ready job is passed over by a worker that holds another one."""
    if Suspicion.NONE in (held, job):
        return 0.0
    return LATE if Suspicion.LAST in (held, job) else SOON


def said_of(crashes: int) -> str:
    """Return what `explain` says of a suspect that waits."""
    workers = "1 worker" if crashes == 1 else f"{crashes} workers"
    return (
        f"it took {workers} down, or ran beside what did: for a while it is kept from those that run another such job"
    )
