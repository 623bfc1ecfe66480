"""The promises of the connector port, one method each; they need no test runner, so that a command can run them too."""

import asyncio
import json
from contextlib import aclosing

import jsonschema_rs

from hostler.contracts.failure import FailureClass, Stage
from hostler.contracts.job import Progress
from hostler.contracts.preview import Preview
from hostler.contracts.service import EndpointState, Failed, Finished, RemoteRef, RemoteState
from hostler.contracts.timeouts import Timeouts
from hostler.kernel.errors import ServiceUnavailableError
from hostler.testing.connectors_house import (
    ConnectorHarness,
    Work,
    call_of,
    do,
    failure_of,
    idle,
    last_of,
    needs,
    open_files,
    says,
    steps_of,
    submitted,
)
from hostler.testing.eventually import eventually


class WorkPromises:
    """What holds while all is well."""

    cycles: int = 100
    """Open, use, close."""

    async def test_a_probe_says_how_the_endpoint_is_and_never_raises(self, harness: ConnectorHarness) -> None:
        async with harness.build() as connector, harness.unreachable() as nowhere:
            here = await connector.probe()
            assert here.state is EndpointState.READY, f"it is {here.state}: {here.message}"
            found = await nowhere.probe()
        assert found.state not in {EndpointState.READY, EndpointState.DEGRADED}
        assert found.message

    async def test_capabilities_name_kinds_that_are_declared_and_raise_one_error_when_nobody_answers(
        self, harness: ConnectorHarness
    ) -> None:
        async with harness.build() as connector, harness.unreachable() as nowhere:
            found = await connector.capabilities()
            assert set(found.kinds) <= {spec.name for spec in connector.kinds()}
            assert harness.quick.kind in found.kinds
            try:
                surprise = await nowhere.capabilities()
            except ServiceUnavailableError:
                return
        raise AssertionError(f"nobody is there, and yet: {surprise}")

    async def test_work_ends_in_exactly_one_end_after_progress_that_only_rises(self, harness: ConnectorHarness) -> None:
        async with harness.build() as connector:
            spec = next(spec for spec in connector.kinds() if spec.name == harness.quick.kind)
            steps = await steps_of(connector, call_of(harness.quick))
        *before, end = steps
        assert isinstance(end, Finished), end
        assert all(isinstance(step, Progress | Preview) for step in before)
        fractions = [step.fraction for step in before if isinstance(step, Progress) and step.fraction is not None]
        assert fractions == sorted(fractions)
        if spec.result is not None:
            jsonschema_rs.validator_for(spec.result).validate(json.loads(bytes(end.result)))

    async def test_work_that_does_not_fit_its_kind_is_invalid_input(self, harness: ConnectorHarness) -> None:
        async with harness.build() as connector:
            failure = await failure_of(connector, call_of(harness.wrong))
            unknown = await failure_of(connector, call_of(Work(kind="no.such-kind", payload={}), job="conformance.2"))
        assert failure.class_ is FailureClass.INVALID_INPUT
        assert failure.message
        assert unknown.class_ is FailureClass.INVALID_INPUT

    async def test_the_same_job_and_fence_runs_once(self, harness: ConnectorHarness) -> None:
        executed = harness.executed
        needs(executed, "count what it executed")
        async with harness.build() as connector:
            call = call_of(harness.quick)
            first, second = await submitted(connector, call), await submitted(connector, call)
            assert first == second
            steps = [step async for step in connector.observe(call, second)]
        assert isinstance(steps[-1], Finished)
        assert executed is not None
        assert await executed() == 1

    async def test_cancel_stops_the_work_and_its_observer_learns_it(self, harness: ConnectorHarness) -> None:
        async with harness.build() as connector:
            call = call_of(harness.slow)
            ref = await submitted(connector, call)
            watching = asyncio.create_task(last_of(connector, call, ref))
            await eventually(lambda: says(connector, ref, RemoteState.RUNNING))
            assert await connector.cancel(ref)
            end = await asyncio.wait_for(watching, 3)
            assert isinstance(end, Failed)
            assert end.failure.class_ is FailureClass.CANCELLED
            assert await connector.reconcile(ref) is RemoteState.CANCELLED
            await idle(harness)

    async def test_whoever_stops_watching_does_not_stop_the_work(self, harness: ConnectorHarness) -> None:
        async with harness.build() as connector:
            call = call_of(harness.quick)
            ref = await submitted(connector, call)
            watching = asyncio.create_task(last_of(connector, call, ref))
            await asyncio.sleep(0)
            watching.cancel()
            await asyncio.wait({watching})
            assert isinstance(await last_of(connector, call, ref), Finished)

    async def test_reconcile_tells_the_truth_and_fetch_gives_the_same_end(self, harness: ConnectorHarness) -> None:
        async with harness.build() as connector:
            call = call_of(harness.quick)
            ref = await submitted(connector, call)
            end = await last_of(connector, call, ref)
            assert isinstance(end, Finished)
            assert await connector.reconcile(ref) is RemoteState.SUCCEEDED
            again = await connector.fetch(ref)
            assert isinstance(again, Finished)
            assert json.loads(bytes(again.result)) == json.loads(bytes(end.result))
            stranger = RemoteRef(id="never-was", job_id="conformance.8", fence=1)
            assert await connector.reconcile(stranger) in {RemoteState.LOST, RemoteState.UNKNOWN}
            assert isinstance(await connector.fetch(stranger), Failed)

    async def test_another_connector_learns_of_the_work_or_says_that_it_cannot(self, harness: ConnectorHarness) -> None:
        async with harness.build() as first, harness.build() as second:
            call = call_of(harness.quick)
            ref = await submitted(first, call)
            if not harness.remembers:
                assert await second.reconcile(ref) is RemoteState.UNKNOWN
                return
            heir = RemoteRef(id=ref.id, job_id=ref.job_id, fence=2)
            assert await second.reconcile(heir) in {RemoteState.PENDING, RemoteState.RUNNING, RemoteState.SUCCEEDED}
            end = await last_of(second, call_of(harness.quick, fence=2), heir)
            assert isinstance(end, Finished)
            assert not await first.cancel(ref), "a stale fence must not be believed"

    async def test_release_is_idempotent_and_forgets(self, harness: ConnectorHarness) -> None:
        async with harness.build() as connector:
            call = call_of(harness.quick)
            ref = await submitted(connector, call)
            await last_of(connector, call, ref)
            await connector.release(ref)
            await connector.release(ref)
            assert await connector.reconcile(ref) in {RemoteState.LOST, RemoteState.UNKNOWN}

    async def test_closing_leaves_nothing_open(self, harness: ConnectorHarness) -> None:
        """Whatever went on: finished, watched by nobody, or still running."""
        await self._cycle(harness)
        tasks, files = len(asyncio.all_tasks()), open_files()
        for _ in range(self.cycles):
            await self._cycle(harness)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        await eventually(lambda: open_files() <= files + 2)

    async def _cycle(self, harness: ConnectorHarness) -> None:
        connector = harness.build()
        async with connector:
            await connector.probe()
            call = call_of(harness.slow)
            ref = await submitted(connector, call)
            async with aclosing(connector.observe(call, ref)) as steps:
                await anext(steps)
            await connector.release(ref)
        await connector.__aexit__(None, None, None)


class TroublePromises:
    """What holds when the service, or the way to it, does not do well."""

    async def test_an_endpoint_that_is_not_there_is_a_failure_with_a_class(self, harness: ConnectorHarness) -> None:
        async with harness.unreachable() as nowhere:
            failure = await failure_of(nowhere, call_of(harness.quick))
            ref = RemoteRef(id="conformance.9", job_id="conformance.9", fence=1)
            assert await nowhere.reconcile(ref) is RemoteState.UNKNOWN
            assert not await nowhere.cancel(ref)
            assert isinstance(await nowhere.fetch(ref), Failed)
            await nowhere.release(ref)
        assert failure.class_ in {FailureClass.TRANSIENT, FailureClass.TIMEOUT}
        assert failure.message

    async def test_a_run_over_its_limit_ends_as_timeout_and_is_stopped(self, harness: ConnectorHarness) -> None:
        async with harness.build() as connector:
            failure = await failure_of(connector, call_of(harness.slow, timeouts=Timeouts(connect=5.0, run=0.4)))
            assert (failure.class_, failure.stage) == (FailureClass.TIMEOUT, Stage.RUN)
            await idle(harness)

    async def test_a_deadline_ends_work_as_timeout(self, harness: ConnectorHarness) -> None:
        async with harness.build() as connector:
            failure = await failure_of(connector, call_of(harness.slow, left=0.4))
            assert (failure.class_, failure.stage) == (FailureClass.TIMEOUT, Stage.DEADLINE)
            late = await failure_of(connector, call_of(harness.slow, job=f"{harness.slow.job}-late", left=-1.0))
            assert late.class_ is FailureClass.TIMEOUT

    async def test_work_that_stops_moving_ends_as_timeout(self, harness: ConnectorHarness) -> None:
        needs(harness.hang, "hang")
        await do(harness.hang)
        async with harness.build() as connector:
            limits = Timeouts(connect=5.0, first_byte=5.0, idle=0.4, run=20.0)
            failure = await failure_of(connector, call_of(harness.quick, timeouts=limits))
            assert (failure.class_, failure.stage) == (FailureClass.TIMEOUT, Stage.IDLE)
            await idle(harness)

    async def test_a_completion_that_is_never_announced_is_found(self, harness: ConnectorHarness) -> None:
        needs(harness.silence, "keep a completion to itself")
        await do(harness.silence)
        async with harness.build() as connector:
            assert isinstance((await steps_of(connector, call_of(harness.quick)))[-1], Finished)

    async def test_a_stream_that_is_cut_is_no_success_and_runs_nothing_twice(self, harness: ConnectorHarness) -> None:
        needs(harness.cut, "cut a stream")
        await do(harness.cut)
        async with harness.build() as connector:
            end = (await steps_of(connector, call_of(harness.quick)))[-1]
        if harness.remembers:
            assert isinstance(end, Finished), end
        else:
            assert isinstance(end, Failed)
            assert end.failure.class_ is FailureClass.TRANSIENT
        if harness.executed is not None:
            assert await harness.executed() == 1

    async def test_a_sick_endpoint_touches_no_work(self, harness: ConnectorHarness) -> None:
        needs(harness.sick, "fail its health checks")
        await do(harness.sick)
        async with harness.build() as connector:
            assert (await connector.probe()).state is not EndpointState.READY
            assert isinstance((await steps_of(connector, call_of(harness.quick)))[-1], Finished)

    async def test_no_room_is_overload_with_a_time_to_come_back(self, harness: ConnectorHarness) -> None:
        needs(harness.full, "be full")
        await do(harness.full)
        async with harness.build() as connector:
            failure = await failure_of(connector, call_of(harness.quick))
        assert failure.class_ is FailureClass.OVERLOADED
        assert failure.retry_after is not None
