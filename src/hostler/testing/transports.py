"""The executable promise of transports: one class for every way of carrying a conversation."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import cast

import pytest

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.transports.conversation import Dialogue, Limits, Transport
from hostler.contracts.failure import FailureClass, Stage
from hostler.kernel.units import Seconds
from hostler.testing.connectors_house import needs, open_files
from hostler.testing.eventually import eventually
from hostler.testing.transports_house import CREDENTIAL, SHOWN, Play, TransportHarness, heard, outcome

BOUND: Seconds = 10.0
"""Nothing here may take longer."""


class TalkPromises:
    """What holds of what is said."""

    async def test_messages_arrive_whole_and_in_order(self, harness: TransportHarness) -> None:
        small = [json.dumps({"number": number, "text": "ü€😀"}, ensure_ascii=False) for number in range(300)]
        says = (*small[:150], json.dumps("x" * 300_000), *small[150:], json.dumps(["\n", "\r\n", "\u2028"]))
        messages, failure = await outcome(harness, Play(says=says))
        assert failure is None
        assert [message.decode() for message in messages] == list(says)

    async def test_the_close_of_the_peer_ends_the_conversation(self, harness: TransportHarness) -> None:
        assert await outcome(harness, Play(says=('"one"',))) == ([b'"one"'], None)
        assert await outcome(harness, Play()) == ([], None)

    async def test_conversations_at_the_same_time_do_not_mix(self, harness: TransportHarness) -> None:
        plays = [Play(says=tuple(f'"{name}{number}"' for number in range(50))) for name in "abcdefgh"]
        async with harness.build() as transport:
            found = await asyncio.gather(*(outcome(harness, play, transport=transport) for play in plays))
        assert [tuple(message.decode() for message in messages) for messages, _ in found] == [p.says for p in plays]

    async def test_what_is_said_later_arrives_in_order(self, harness: TransportHarness) -> None:
        needs(harness.echoes or None, "say more after its opening")
        said = [json.dumps({"number": number, "text": "y" * 999}).encode() for number in range(100)]
        async with (
            harness.build() as transport,
            transport.conversation(harness.target, Play(then="echo").opening()) as conversation,
            aclosing(conversation.messages()) as messages,
        ):
            for message in said:
                await cast("Dialogue", conversation).send(message)
            assert [await anext(messages) for _ in said] == said

    async def test_leaving_a_conversation_leaves_the_peer(self, harness: TransportHarness) -> None:
        async with harness.build() as transport:
            async with aclosing(heard(harness, transport, Play(says=("1",), then="hang"))) as messages:
                assert await anext(messages) == b"1"
                assert harness.present() == 1
            await eventually(lambda: harness.present() == 0)

    async def test_a_listener_that_is_cancelled_leaves_at_once(self, harness: TransportHarness) -> None:
        async with harness.build() as transport:
            listening = asyncio.create_task(outcome(harness, Play(then="hang"), transport=transport))
            await eventually(lambda: harness.present() == 1)
            listening.cancel()
            await asyncio.wait_for(asyncio.wait({listening}), BOUND)
            assert listening.cancelled()
            await eventually(lambda: harness.present() == 0)


class TroubleOnTheWire:
    """What holds when the peer, or the way to it, does not do well."""

    async def test_a_peer_that_dies_is_transient_and_never_an_end(self, harness: TransportHarness) -> None:
        for says in ((), ("1", "2", "3")):
            messages, failure = await outcome(harness, Play(says=says, then="die"))
            assert [message.decode() for message in messages] == list(says)[: len(messages)]
            assert failure is not None
            assert failure.class_ is FailureClass.TRANSIENT
            assert failure.message

    async def test_silence_ends_as_timeout_of_stage_idle(self, harness: TransportHarness) -> None:
        messages, failure = await outcome(harness, Play(says=("1",), then="hang"), Limits(silence=harness.silence))
        assert messages == [b"1"]
        assert failure is not None
        assert (failure.class_, failure.stage) == (FailureClass.TIMEOUT, Stage.IDLE)

    async def test_a_message_over_its_size_is_off_the_protocol(self, harness: TransportHarness) -> None:
        says = ("1", json.dumps("x" * 200_000), "2")
        messages, failure = await outcome(harness, Play(says=says), Limits(message=100_000))
        assert messages in ([], [b"1"])
        assert failure is not None
        assert failure.class_ is FailureClass.TRANSIENT
        assert failure.details["protocol"] is True

    async def test_a_conversation_that_never_ends_does_end(self, harness: TransportHarness) -> None:
        play = Play(says=(json.dumps("x" * 10_000),), times=1_000_000)
        async with harness.build() as transport:
            running = outcome(harness, play, Limits(total=1_000_000), transport=transport)
            messages, failure = await asyncio.wait_for(running, BOUND)
            await eventually(lambda: harness.present() == 0)
        assert sum(map(len, messages)) <= 1_000_000
        assert failure is not None
        assert failure.class_ is FailureClass.TRANSIENT
        assert failure.details["protocol"] is True

    async def test_an_endpoint_that_is_not_there_is_a_failure_with_a_class(self, harness: TransportHarness) -> None:
        async with harness.nowhere() as transport:
            messages, failure = await outcome(harness, Play(says=("1",)), transport=transport)
        assert messages == []
        assert failure is not None
        assert failure.class_ in harness.absence
        assert failure.message

    async def test_the_credential_is_shown_to_the_peer_and_never_part_of_what_comes_back(
        self, harness: TransportHarness
    ) -> None:
        needs(harness.shows_credential or None, "show a credential")
        messages, failure = await outcome(harness, Play(says=(json.dumps(f"you are {SHOWN}"),)))
        assert (messages, failure) == ([b'"you are ***"'], None)
        messages, failure = await outcome(harness, Play(then="refuse"))
        assert messages == []
        assert failure is not None
        assert failure.class_ is not FailureClass.INTERNAL
        assert CREDENTIAL not in f"{failure}"

    async def test_a_transport_that_is_not_open_says_so(self, harness: TransportHarness) -> None:
        messages, failure = await outcome(harness, Play(says=("1",)), transport=harness.build())
        assert messages == []
        assert failure is not None
        assert (failure.class_, failure.message) == (FailureClass.INTERNAL, "the connector is not open")

    async def test_closing_ends_what_goes_on_and_a_second_time_is_safe(self, harness: TransportHarness) -> None:
        transport = await harness.build().__aenter__()
        async with AsyncExitStack() as stack:
            opening = Play(says=("1",), then="hang").opening()
            conversation = await stack.enter_async_context(transport.conversation(harness.target, opening))
            messages = await stack.enter_async_context(aclosing(conversation.messages()))
            assert await anext(messages) == b"1"
            waiting = asyncio.create_task(_following(messages))
            await transport.__aexit__(None, None, None)
            await transport.__aexit__(None, None, None)
            with pytest.raises((ServiceFaultError, StopAsyncIteration)):
                await asyncio.wait_for(waiting, BOUND)
        await eventually(lambda: harness.present() == 0)

    async def test_nothing_is_left_open_however_conversations_end(self, harness: TransportHarness) -> None:
        await self._cycle(harness)
        tasks, files = len(asyncio.all_tasks()), open_files()
        for _ in range(self.cycles):
            await self._cycle(harness)
        await eventually(lambda: harness.present() == 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        await eventually(lambda: open_files() <= files + 2)

    cycles: int = 20
    """Open, talk, close."""

    async def _cycle(self, harness: TransportHarness) -> None:
        transport = harness.build()
        async with transport:
            for play in (Play(says=("1",)), Play(says=("1",), then="die"), Play(then="refuse")):
                await outcome(harness, play, transport=transport)
            try:
                await _give_up(harness, transport)
            except ServiceFaultError:  # it met the connection that died with a play before
                await _give_up(harness, transport)
        await transport.__aexit__(None, None, None)


async def _give_up(harness: TransportHarness, transport: Transport) -> None:
    """Hear the first message of a conversation that would go on, and leave it."""
    async with aclosing(heard(harness, transport, Play(says=("1", "2"), then="hang"))) as messages:
        await anext(messages)


async def _following(messages: AsyncGenerator[bytes]) -> bytes:
    return await anext(messages)


class TransportConformance(TalkPromises, TroubleOnTheWire):
    """Subclass it, override `harness`, and every promise is a test."""

    @pytest.fixture
    async def harness(self) -> TransportHarness:
        """Return (or yield) a fresh peer."""
        raise NotImplementedError("override the fixture `harness`")


__all__ = ["CREDENTIAL", "Play", "TransportConformance", "TransportHarness"]
