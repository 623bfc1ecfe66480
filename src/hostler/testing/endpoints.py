"""The executable promises of the registry of endpoints and of discovery."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import pytest

from hostler.contracts.service import Enrolment, Shared, Source, Waiting
from hostler.kernel.errors import InvalidError
from hostler.ports.discovery import Discovery, Placed
from hostler.ports.registry import EndpointRegistry


@dataclass(frozen=True, kw_only=True)
class EndpointHarness:
    """A registry of endpoints whose clock the test holds, and a discovery that follows `connector` in it."""

    registry: EndpointRegistry
    advance: Callable[[float], Awaitable[None]]
    discovery: Discovery
    connector: str
    mend: Callable[[], Awaitable[None]]
    """Let the registry answer again after `cut`."""
    cut: Callable[[], Awaitable[None]]
    """Let the registry not answer."""

    def place(self, name: str, port: int = 1) -> Enrolment:
        """Return an announcement of an endpoint that `discovery` follows."""
        return Enrolment(id=name, connector=self.connector, url=f"http://127.0.0.1:{port}")


class EndpointConformance:
    """Subclass it, override `harness`, and every promise is a test; nothing is announced yet."""

    @pytest.fixture
    async def harness(self) -> EndpointHarness:
        """Return (or yield) the registry under test."""
        raise NotImplementedError("override the fixture `harness`")

    async def test_an_announced_endpoint_is_known_until_its_lease_runs_out(self, harness: EndpointHarness) -> None:
        assert await harness.registry.enroll(harness.place("b"), ttl=10.0)
        assert await harness.registry.enroll(harness.place("a"), ttl=30.0)
        assert await ids(harness) == ["a", "b"]
        await harness.advance(10.5)
        assert await ids(harness) == ["a"]

    async def test_a_renewal_is_no_news_and_what_is_said_anew_is(self, harness: EndpointHarness) -> None:
        first = harness.place("a", 1)
        assert await harness.registry.enroll(first, ttl=10.0)
        await harness.advance(8.0)
        assert not await harness.registry.enroll(first, ttl=10.0)
        await harness.advance(8.0)
        assert await ids(harness) == ["a"]
        assert await harness.registry.enroll(harness.place("a", 2), ttl=10.0)
        (found,) = (await harness.registry.census()).enrolled
        assert found.enrolment.url.endswith(":2")
        assert (found.expires_at - found.seen_at).total_seconds() == pytest.approx(10.0)

    async def test_one_that_left_is_gone_at_once_and_may_come_back(self, harness: EndpointHarness) -> None:
        await harness.registry.enroll(harness.place("a"))
        assert await harness.registry.leave("a", reason="it moves")
        assert not await harness.registry.leave("a")
        assert await ids(harness) == []
        assert await harness.registry.enroll(harness.place("a"))

    async def test_the_version_tells_of_every_change_and_of_no_renewal(self, harness: EndpointHarness) -> None:
        seen = [(await harness.registry.census()).version]

        async def changed() -> bool:
            seen.append((await harness.registry.census(version=seen[-1])).version)
            return seen[-1] != seen[-2]

        await harness.registry.enroll(harness.place("a"), ttl=10.0)
        assert await changed()
        await harness.registry.enroll(harness.place("a"), ttl=10.0)
        assert not await changed()
        await harness.registry.mark("a", "pause", reason="tests")
        assert await changed()
        await harness.advance(11.0)
        assert await changed()
        assert not await changed()

    async def test_a_mark_is_kept_by_id_also_of_one_that_was_never_announced(self, harness: EndpointHarness) -> None:
        assert await harness.registry.mark("c", "pause", reason="a new fan")
        assert not await harness.registry.mark("c", "pause", reason="a new fan")
        assert (await harness.registry.census()).marks["c"].paused == "a new fan"
        assert await harness.registry.mark("c", "resume")
        assert await harness.registry.mark("c", "reset")
        assert await harness.registry.mark("c", "reset")
        mark = (await harness.registry.census()).marks["c"]
        assert (mark.paused, mark.resets) == (None, 2)

    async def test_what_makes_no_sense_is_refused(self, harness: EndpointHarness) -> None:
        with pytest.raises(InvalidError, match="pause, resume or reset"):
            await harness.registry.mark("a", "explode")
        for ttl in (0.0, -1.0, 1e6):
            with pytest.raises(InvalidError, match="lease"):
                await harness.registry.enroll(harness.place("a"), ttl=ttl)

    async def test_the_first_to_tell_decides_until_it_has_said_nothing_for_a_while(
        self, harness: EndpointHarness
    ) -> None:
        first = await told(harness, "w1", coming="a")
        assert (first.keeper, first.coming, first.idle, first.waiting) == ("w1", "a", None, ())
        await harness.advance(4.0)
        second = await told(harness, "w2", coming="b", waiting={"b": Waiting(jobs=3, oldest=1.5)})
        assert (second.keeper, second.coming) == ("w1", "a")
        assert (await told(harness, "w1", coming=None)).waiting == ({"b": Waiting(jobs=3, oldest=1.5)},)
        await harness.advance(4.0)
        assert (await told(harness, "w2", coming="b")).coming is None
        await harness.advance(1.5)
        third = await told(harness, "w2", coming="b")
        assert (third.keeper, third.coming, third.waiting) == ("w2", "b", ())

    async def test_a_load_and_a_call_are_heard_by_all_others_with_their_age(self, harness: EndpointHarness) -> None:
        await told(harness, "w1", loads=("a", "a:latest"), busy=True)
        await harness.advance(2.0)
        heard = await told(harness, "w2")
        assert (heard.loads, heard.models, heard.by, heard.age, heard.idle) == (1, ("a", "a:latest"), "w1", 2.0, 2.0)
        own = await told(harness, "w1", loads=("b",))
        assert (own.loads, own.models, own.by, own.age, own.idle) == (2, ("b",), "w1", 0.0, None)
        other = await harness.registry.share("f", "w1", coming=None, loads=(), busy=False, waiting={})
        assert (other.loads, other.models) == (0, ())


async def told(
    harness: EndpointHarness,
    worker: str,
    *,
    coming: str | None = None,
    loads: tuple[str, ...] = (),
    busy: bool = False,
    waiting: Mapping[str, Waiting] | None = None,
) -> Shared:
    """Tell what a worker does at the endpoint `e`."""
    said = waiting or {}
    return await harness.registry.share("e", worker, coming=coming, loads=loads, busy=busy, waiting=said)


class DiscoveryConformance:
    """Subclass it, override `harness`, and every promise of discovery is a test."""

    @pytest.fixture
    async def harness(self) -> EndpointHarness:
        """Return (or yield) the discovery under test."""
        raise NotImplementedError("override the fixture `harness`")

    async def test_kinds_are_known_before_any_endpoint_is(self, harness: EndpointHarness) -> None:
        assert harness.discovery.kinds()
        assert (await harness.discovery.find()).placed == ()

    async def test_an_endpoint_keeps_its_connector_as_long_as_nothing_changes(self, harness: EndpointHarness) -> None:
        await harness.registry.enroll(harness.place("a", 1))
        (first,) = await found(harness)
        await harness.registry.enroll(harness.place("a", 1))
        await harness.registry.enroll(harness.place("b", 2))
        again = {placed.connector.endpoint: placed for placed in await found(harness)}
        assert again["a"].connector is first.connector
        assert (first.source, first.url) == (Source.ANNOUNCED, "http://127.0.0.1:1")

    async def test_an_endpoint_that_moves_gets_another_connector(self, harness: EndpointHarness) -> None:
        await harness.registry.enroll(harness.place("a", 1))
        (first,) = await found(harness)
        await harness.registry.enroll(harness.place("a", 2))
        (second,) = await found(harness)
        assert second.connector is not first.connector
        assert second.url == "http://127.0.0.1:2"

    async def test_an_endpoint_of_another_connector_is_not_its_business(self, harness: EndpointHarness) -> None:
        await harness.registry.enroll(Enrolment(id="z", connector="other-http", url="http://127.0.0.1:9"))
        assert await found(harness) == ()

    async def test_marks_are_told(self, harness: EndpointHarness) -> None:
        await harness.registry.mark("a", "pause", reason="tests")
        marks = (await harness.discovery.find()).marks
        assert marks is not None
        assert marks["a"].paused == "tests"

    async def test_what_was_known_holds_while_nobody_answers(self, harness: EndpointHarness) -> None:
        await harness.registry.enroll(harness.place("a", 1))
        before = await found(harness)
        await harness.cut()
        silent = await harness.discovery.find()
        assert silent.placed == before
        assert silent.marks is None
        await harness.mend()
        await harness.registry.leave("a")
        assert await found(harness) == ()


async def ids(harness: EndpointHarness) -> list[str]:
    """Return the ids of all announced endpoints, in the order given."""
    return [one.enrolment.id for one in (await harness.registry.census()).enrolled]


async def found(harness: EndpointHarness) -> tuple[Placed, ...]:
    """Return what discovery finds now."""
    return (await harness.discovery.find()).placed
