"""What is promised of each job holds where its queue is spread over shards."""

from collections.abc import AsyncGenerator, Generator
from typing import Final

import pytest

from hostler.testing.bench import Server
from hostler.testing.broker import BrokerConformance, BrokerHarness, House
from hostler.testing.broker_claim import KeyPromises
from hostler.testing.broker_engine import engine_harness
from hostler.testing.broker_lease import SettlePromises
from hostler.testing.broker_shards import sharded
from hostler.testing.broker_submit import SubmitPromises

OF_EACH_SHARD: Final = {
    "test_higher_priority_goes_first": "order",
    "test_jobs_of_one_instant_in_different_lanes_keep_their_order": "order",
    "test_a_retry_keeps_its_place": "order",
    "test_one_claim_of_many_takes_the_best_first": "order",
    "test_a_lease_that_is_not_renewed_is_taken_away_and_the_job_keeps_its_place": "order",
    "test_what_was_lost_together_comes_back_one_to_a_worker": "order",
    "test_a_suspect_that_ended_or_was_cancelled_keeps_nobody": "order",
    "test_a_tenant_that_was_away_saves_up_no_turns": "turns of tenants",
    "test_a_waiting_job_says_its_place_in_its_tenants_line": "the line of a tenant",
    "test_no_job_is_stored_beyond_the_depth": "limits, of which each shard has a share",
    "test_a_job_that_ended_makes_room_for_another": "limits, of which each shard has a share",
    "test_a_tenant_has_a_depth_of_its_own": "limits, of which each shard has a share",
    "test_payload_bytes_are_bounded_and_given_back": "limits, of which each shard has a share",
    "test_lanes_are_bounded": "limits",
    "test_ended_jobs_leave_by_count_oldest_first": "limits, of which each shard has a share",
    "test_offsets_have_no_gaps_and_every_move_is_in_the_life_table": "the stream",
    "test_a_reader_resumes_from_any_offset": "the stream",
    "test_a_reader_that_comes_more_than_an_hour_too_late_is_told": "the stream",
    "test_pause_resume_and_drain_are_events_of_the_queue_once_each": "the stream",
    "test_jobs_of_one_session_that_are_claimed_together_stay_together": "balance within one claim",
    "test_a_session_with_a_concurrency_key_keeps_both": "a session, where jobs go by their concurrency keys",
    "test_what_waits_for_models_is_told_lane_by_lane_with_its_number_and_age": "what waits in it",
    "test_nothing_is_told_of_a_queue_that_gives_nothing_out": "what waits in it",
}
"""What is promised of each shard by itself, and so not here, where the suite takes the queue for one."""


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start()
    yield found
    found.kill()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Let the harness start a server where the loop runs: it is no part of what is tested."""


@pytest.fixture
async def harness(server: Server) -> AsyncGenerator[BrokerHarness]:
    await server.up()
    async with engine_harness(server) as found:
        yield sharded(found)


@pytest.mark.long
class TestShardedBroker(BrokerConformance):
    @pytest.fixture
    async def harness(self, server: Server, request: pytest.FixtureRequest) -> AsyncGenerator[BrokerHarness]:
        if (what := OF_EACH_SHARD.get(request.node.name)) is not None:
            pytest.skip(f"{what}: promised of each shard by itself")
        await server.up()
        async with engine_harness(server) as found:
            yield sharded(found)


class TestJobsOfShards(SubmitPromises, KeyPromises, SettlePromises):
    """What holds of single jobs, in every run."""

    @pytest.fixture
    async def house(self, harness: BrokerHarness) -> House:
        house = House(harness)
        await house.open()
        return house


def test_what_is_left_out_is_there() -> None:
    assert {name for name in OF_EACH_SHARD if not hasattr(BrokerConformance, name)} == set()
