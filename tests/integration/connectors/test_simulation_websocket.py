"""The simulated service over one real WebSocket: cut anywhere, shared by many, full of moods."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from hostler.connectors.catalogue import build
from hostler.contracts.failure import FailureClass
from hostler.contracts.service import EndpointState, Failed, Finished, RemoteRef, RemoteState
from hostler.ports.connector import Connector
from hostler.testing.connectors import Work, call_of, steps_of, submitted
from hostler.testing.connectors_house import open_files
from hostler.testing.eventually import eventually
from hostler.testing.sims.http import cut
from hostler.testing.sims.knobs import FAILURE_CODES, SimKnobs
from hostler.testing.sims.websocket import SimulationWebsocketService, serve_sim_websocket

QUICK = Work(kind="image.generate", payload={"prompt": "a lighthouse", "duration": 0.03, "steps": 3, "seed": 7})
SLOW = Work(kind="image.generate", payload={"prompt": "a lighthouse", "duration": 30.0, "steps": 300})


def connector_to(url: str, **options: Any) -> Connector:
    return build("simulation-websocket", url=url, options={"poll": 0.1, **options})


def told(service: SimulationWebsocketService) -> list[tuple[str, int, int]]:
    return [(effect.type, effect.fence, effect.run) for effect in service.effects.effects]


class Cut(SimulationWebsocketService):
    """Cuts the socket where a message is due, at the given numbers of messages that it was to send."""

    def __init__(self, *, at: range | frozenset[int]) -> None:
        super().__init__(SimKnobs())
        self.said = 0
        self._at = at

    async def say(self, request: web.Request, socket: web.WebSocketResponse, message: bytes) -> None:
        self.said += 1
        if self.said - 1 in self._at:
            cut(request)
        else:
            await super().say(request, socket, message)


@pytest.fixture
async def service() -> AsyncGenerator[SimulationWebsocketService]:
    async with SimulationWebsocketService(SimKnobs(duration=0.05, steps=5)) as service:
        yield service


async def end_of_one(service: SimulationWebsocketService) -> Any:
    """Run one job to its end, and return the result that it must have."""
    async with service, connector_to(service.url) as connector:
        end = (await steps_of(connector, call_of(QUICK)))[-1]
    assert isinstance(end, Finished), end
    assert told(service) == [("started", 1, 1), ("finished", 1, 1)]
    return json.loads(bytes(end.result))


@pytest.mark.row("001:199")
async def test_the_socket_may_be_cut_at_every_message_and_the_job_ends_right_and_ran_once() -> None:
    whole = Cut(at=frozenset())
    result = await end_of_one(whole)
    assert whole.sockets == 1
    messages = whole.said
    assert messages >= 6
    for number in range(messages):
        one = Cut(at=frozenset({number}))
        assert await end_of_one(one) == result
        assert one.sockets == 2, number


@pytest.mark.row("001:199")
@pytest.mark.parametrize("every", [2, 3])
async def test_a_socket_that_is_cut_again_and_again_still_brings_the_job_to_its_end(every: int) -> None:
    service = Cut(at=range(0, 10_000, every))
    await end_of_one(service)
    assert service.sockets > 2


@pytest.mark.row("001:199")
async def test_a_knob_that_cuts_the_socket_mid_job_is_followed_by_reconnect_and_the_job_succeeds_once(
    service: SimulationWebsocketService,
) -> None:
    service.knobs = SimKnobs(drop_rate=1.0, seed=2)
    async with connector_to(service.url) as connector:
        end = (await steps_of(connector, call_of(QUICK)))[-1]
    assert isinstance(end, Finished)
    assert service.sockets == 2
    assert told(service) == [("started", 1, 1), ("finished", 1, 1)]


async def test_all_requests_and_streams_share_one_socket(service: SimulationWebsocketService) -> None:
    service.knobs = SimKnobs(slots=32)
    async with connector_to(service.url) as connector:
        jobs = [steps_of(connector, call_of(QUICK, job=f"image.{number}")) for number in range(32)]
        ends = [steps[-1] for steps in await asyncio.gather(*jobs)]
        assert (await connector.probe()).state is EndpointState.READY
    assert all(isinstance(end, Finished) for end in ends)
    assert service.sockets == 1


@pytest.mark.row("000:97", "001:78")
async def test_jobs_with_sick_health_missed_completions_and_cut_sockets_all_end_as_the_log_says() -> None:
    knobs = SimKnobs(
        duration=0.02, steps=2, slots=32, missed_rate=0.04, drop_rate=0.04, health_failure_rate=0.04, seed=4
    )
    free = asyncio.Semaphore(32)
    async with SimulationWebsocketService(knobs) as service, connector_to(service.url) as connector:

        async def one(number: int) -> bool:
            async with free:
                work = Work(kind="sim.echo", payload={"value": number})
                end = (await steps_of(connector, call_of(work, job=f"image.{number}")))[-1]
                assert isinstance(end, Finished), end
                return json.loads(bytes(end.result)) == number

        assert all(await asyncio.gather(*(one(number) for number in range(300))))
        effects = Counter(effect.type for effect in service.effects.effects)
    assert effects == {"started": 300, "finished": 300}
    assert service.sockets > 3


async def test_bursts_of_server_errors_are_outlasted_and_run_nothing_twice(service: SimulationWebsocketService) -> None:
    service.knobs = SimKnobs(duration=0.2, steps=10, burst_rate=0.2, burst_length=4, seed=3, drop_rate=1.0)
    async with connector_to(service.url) as connector:
        ends = Counter[str]()
        for number in range(6):
            answer = await connector.submit(call_of(QUICK, job=f"image.{number}"))
            if isinstance(answer, Failed):
                assert answer.failure.class_ is FailureClass.TRANSIENT
                ends["refused"] += 1
                continue
            assert isinstance(answer, RemoteRef)
            steps = [step async for step in connector.observe(call_of(QUICK, job=f"image.{number}"), answer)]
            ends[type(steps[-1]).__name__] += 1
    assert ends["Failed"] == 0
    assert ends["Finished"] == sum(effect[0] == "started" for effect in told(service)) > 0


@pytest.mark.parametrize("code", FAILURE_CODES)
async def test_every_failure_of_the_service_has_the_class_that_it_has_over_http(
    service: SimulationWebsocketService, code: str
) -> None:
    service.knobs = SimKnobs(duration=0.02, failures={code: 1.0})
    classes = {
        "internal_error": "transient",
        "unknown_model": "capability_mismatch",
        "quota_exceeded": "quota",
        "unauthorized": "auth",
        "content_refused": "refused",
    }
    async with connector_to(service.url) as connector:
        end = (await steps_of(connector, call_of(QUICK)))[-1]
    assert isinstance(end, Failed)
    assert end.failure.class_.value == classes.get(code, code)
    assert end.failure.details["code"] == code


async def test_a_lower_fence_is_refused_and_a_higher_one_takes_over(service: SimulationWebsocketService) -> None:
    async with connector_to(service.url) as connector:
        await submitted(connector, call_of(SLOW, fence=5))
        late = await connector.submit(call_of(SLOW, fence=4))
        assert isinstance(late, Failed)
        assert late.failure.class_ is FailureClass.LOST
        assert not await connector.cancel(RemoteRef(id="conformance.1", job_id="conformance.1", fence=4))
        heir = RemoteRef(id="conformance.1", job_id="conformance.1", fence=6)
        assert await connector.reconcile(heir) is RemoteState.RUNNING
        assert not await connector.cancel(RemoteRef(id="conformance.1", job_id="conformance.1", fence=5))
        assert await connector.cancel(heir)
    assert [effect[:2] for effect in told(service)] == [
        ("started", 5),
        ("refused", 4),
        ("refused", 4),
        ("adopted", 6),
        ("refused", 5),
        ("cancelled", 6),
    ]


async def test_no_slot_is_overload_with_a_time_to_come_back_and_a_backlog_waits(
    service: SimulationWebsocketService,
) -> None:
    service.knobs = SimKnobs(slots=1, retry_after=1.5)
    async with connector_to(service.url) as connector:
        await submitted(connector, call_of(SLOW, job="a.1"))
        refused = await connector.submit(call_of(SLOW, job="a.2"))
        assert isinstance(refused, Failed)
        assert (refused.failure.class_, refused.failure.retry_after) == (FailureClass.OVERLOADED, 1.5)
        service.knobs = SimKnobs(slots=1, backlog=1)
        call = call_of(QUICK, job="a.2", fence=2)
        waiting = await submitted(connector, call)
        assert await connector.reconcile(waiting) is RemoteState.PENDING
        steps = connector.observe(call, waiting)
        following = asyncio.create_task(_all(steps))
        assert await connector.cancel(RemoteRef(id="a.1", job_id="a.1", fence=1))
        assert isinstance((await following)[-1], Finished)


async def _all(steps: Any) -> list[Any]:
    return [step async for step in steps]


async def test_work_in_a_service_that_dies_is_lost_to_its_successor() -> None:
    async with SimulationWebsocketService(SimKnobs()) as service:
        port = int(service.url.rpartition(":")[2])
        connector = connector_to(service.url)
        await connector.__aenter__()
        ref = await submitted(connector, call_of(SLOW))
        watching = asyncio.create_task(_all(connector.observe(call_of(SLOW), ref)))
        await eventually(lambda: service.work.busy == 1)
    assert await connector.reconcile(ref) is RemoteState.UNKNOWN
    async with SimulationWebsocketService(SimKnobs(), port=port):
        end = (await asyncio.wait_for(watching, 15))[-1]
        assert isinstance(end, Failed)
        assert end.failure.class_ in {FailureClass.LOST, FailureClass.TRANSIENT}
        assert await connector.reconcile(ref) is RemoteState.LOST
    await connector.__aexit__(None, None, None)


async def test_whoever_stops_following_is_told_nothing_more(service: SimulationWebsocketService) -> None:
    async with connector_to(service.url) as connector:
        ref = await submitted(connector, call_of(SLOW))
        watching = asyncio.create_task(_all(connector.observe(call_of(SLOW), ref)))
        await eventually(lambda: following(ref))
        watching.cancel()
        await asyncio.wait({watching})
        await eventually(lambda: not following(ref))
        assert (await connector.probe()).busy == 1
    assert service.sockets == 1


def following(ref: RemoteRef) -> bool:
    return any(task.get_name() == f"follow {ref.id}" for task in asyncio.all_tasks())


async def ask(socket: aiohttp.ClientWebSocketResponse, **request: Any) -> Any:
    await socket.send_json(request)
    return await socket.receive_json()


async def test_the_service_answers_whoever_speaks_its_protocol_and_closes_on_those_who_do_not(
    service: SimulationWebsocketService,
) -> None:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{service.url}/socket") as socket:
        before = service.knobs
        assert (await ask(socket, id=1, verb="knobs"))["answer"]["slots"] == before.slots
        wrong: list[Any] = [{"slots": 0}, {"hang_rate": 2}, {"colour": "blue"}, []]
        for change in wrong:
            assert (await ask(socket, id=2, verb="set_knobs", body=change))["error"]["code"] == "invalid_input"
        assert service.knobs == before
        assert (await ask(socket, id=3, verb="set_knobs", body={"slots": 9}))["answer"]["slots"] == 9
        assert (await ask(socket, id=4, verb="dance"))["error"]["code"] == "unknown_verb"
        submission = {"id": "a.1", "fence": 1, "kind": "sim.echo", "input": {"value": 5, "duration": 0.0}}
        assert (await ask(socket, id=5, verb="submit", body=submission))["answer"]["fence"] == 1
        await eventually(lambda: len(service.effects.effects) == 2)
        page = (await ask(socket, id=6, verb="effects", after=1))["answer"]
        assert ([effect["type"] for effect in page["effects"]], page["next"]) == (["finished"], 2)
        assert (await ask(socket, id=7, verb="result", job="a.1"))["answer"]["result"] == 5
        await socket.send_str("no request")
        end = await socket.receive()
    assert (end.type, end.data) == (WSMsgType.CLOSE, 1007)


async def test_serving_ends_when_it_is_told_to() -> None:
    stop = asyncio.Event()
    urls: list[str] = []
    serving = asyncio.create_task(serve_sim_websocket(ready=urls.append, stop=stop))
    await eventually(lambda: urls)
    async with connector_to(urls[0]) as connector:
        assert (await connector.probe()).state is EndpointState.READY
        stop.set()
        await asyncio.wait_for(serving, 5)
        assert (await connector.probe()).state is EndpointState.UNHEALTHY


async def test_a_service_that_loads_says_so_and_takes_no_work() -> None:
    async with SimulationWebsocketService(SimKnobs(loading=3600.0)) as service, connector_to(service.url) as connector:
        assert (await connector.probe()).state is EndpointState.LOADING
        answer = await connector.submit(call_of(QUICK))
    assert isinstance(answer, Failed)
    assert answer.failure.class_ is FailureClass.OVERLOADED


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.row("000:47")
async def test_a_thousand_open_use_close_cycles_leak_nothing(service: SimulationWebsocketService) -> None:
    instant = Work(kind="sim.echo", payload={"value": 1, "duration": 0.0, "steps": 1})
    tasks, files = len(asyncio.all_tasks()), open_files()
    for number in range(1000):
        async with connector_to(service.url) as connector:
            await steps_of(connector, call_of(instant, job=f"image.{number}"))
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    await eventually(lambda: open_files() <= files + 2)
