"""The engine's broker and the model, side by side over every verb, on a real server with a clock that is held."""

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from hostler.testing.bench import Server
from hostler.testing.broker import BrokerHarness
from hostler.testing.broker_engine import engine_harness
from hostler.testing.machine import BrokerMachine

T = TypeVar("T")
SHORT = settings(
    max_examples=45,
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
    phases=(Phase.generate, Phase.shrink),
)
LONG = settings(SHORT, max_examples=500, stateful_step_count=80, derandomize=False, print_blob=True)
PARTS = 4
"""Of the long run: each says by itself what it found."""


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    found = Server()
    found.start()
    asyncio.run(found.up())
    yield found
    found.kill()


@pytest.fixture
def machine(server: Server) -> Generator[type[BrokerMachine]]:
    with asyncio.Runner() as runner:

        class EngineMachine(BrokerMachine):
            def open(self) -> BrokerHarness:
                self.stack = AsyncExitStack()
                return self.run(self.stack.enter_async_context(engine_harness(server)))

            def run(self, work: Coroutine[Any, Any, T]) -> T:
                return runner.run(work)

            def teardown(self) -> None:
                try:
                    super().teardown()
                finally:
                    self.run(self.stack.aclose())

        yield EngineMachine


@pytest.mark.timeout(300)
@pytest.mark.row("000:48", "001:158", "001:170")
def test_the_engine_and_the_model_agree_on_every_answer_state_order_and_event(machine: type[BrokerMachine]) -> None:
    run_state_machine_as_test(machine, settings=SHORT)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_they_agree_on_thousands_of_random_histories(machine: type[BrokerMachine], part: int) -> None:
    del part
    run_state_machine_as_test(machine, settings=LONG)
