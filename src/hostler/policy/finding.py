"""Which jobs a filter means: pure, the same for every adapter of the desk."""

from datetime import datetime

from hostler.contracts.api import JobFilter
from hostler.contracts.job import Job, JobError


def matches(job: Job, which: JobFilter) -> bool:
    """Tell whether a job fits every part that a filter gives."""
    return (
        (which.queue is None or job.queue == which.queue)
        and (which.kind is None or job.kind == which.kind)
        and (not which.states or job.state in which.states)
        and (which.tenant is None or job.tenant == which.tenant)
        and (which.worker is None or job.worker == which.worker)
        and which.labels.items() <= job.labels.items()
        and within(job.finished_at, which)
        and (which.error_class is None or of_class(job.error, which.error_class))
    )


def within(ended: datetime | None, which: JobFilter) -> bool:
    """Tell whether a job that ended then (None: goes on) lies in the filter's time."""
    if which.ended_since is None and which.ended_until is None:
        return True
    if ended is None:
        return False
    late_enough = which.ended_since is None or ended >= which.ended_since
    return late_enough and (which.ended_until is None or ended < which.ended_until)


def of_class(error: JobError | None, wanted_class: str) -> bool:
    """Tell whether an error is of a class; `timeout` stands for `timeout:idle` and the other stages too."""
    return error is not None and (error.class_ == wanted_class or error.class_.partition(":")[0] == wanted_class)
