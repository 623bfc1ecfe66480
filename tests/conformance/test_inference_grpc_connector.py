"""The connector of the Open Inference Protocol over gRPC keeps every promise of the port, against a real MLServer."""

from collections.abc import AsyncGenerator

import pytest

from hostler.connectors.catalogue import build
from hostler.ports.connector import Connector
from hostler.testing.connectors import ConnectorConformance, ConnectorHarness, Hook, Work
from hostler.testing.mlserver import Mlserver

NOWHERE = "grpc://127.0.0.1:9"  # discard: nothing listens there
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "lighthouse"]}


def streamed(**parameters: float) -> Work:
    """One answer per element: a real stream, so there is something to watch, and cancelling it ends the work."""
    return Work(kind="inference.stream", payload={"model": "echo", "inputs": [TENSOR], "parameters": parameters})


@pytest.mark.row("001:290", "002:149")
class TestInferenceGrpcConnector(ConnectorConformance):
    cycles = 30

    @pytest.fixture
    async def harness(self, mlserver: Mlserver) -> AsyncGenerator[ConnectorHarness]:
        before = (await mlserver.counts(mood="well"))["begun"]

        def turn(mood: str) -> Hook:
            async def hook() -> None:
                await mlserver.counts(mood=mood)

            return hook

        async def executed() -> int:
            return (await mlserver.counts())["begun"] - before

        async def busy() -> int:
            return (await mlserver.counts())["busy"]

        def connector() -> Connector:
            return build("inference-grpc", url=f"grpc://{mlserver.target}")

        yield ConnectorHarness(
            build=connector,
            unreachable=lambda: build("inference-grpc", url=NOWHERE),
            quick=streamed(pause=0.01),
            slow=streamed(pause=20.0),
            wrong=Work(kind="inference.infer", payload={"model": "echo", "inputs": [{**TENSOR, "shape": [3]}]}),
            remembers=False,
            executed=executed,
            busy=busy,
            cut=turn("cut"),
            hang=turn("hang"),
            sick=turn("sick"),
        )
        await mlserver.counts(mood="well")
