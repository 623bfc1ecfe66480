"""Models that a real MLServer serves in tests; runs in MLServer's own environment and imports nothing of Hostler.

    echo     gives back what it gets; as a stream, one answer for each element of its first input
    add      the sum of the FP32 tensors `a` and `b`; says 400 when one is missing or has another shape
    slow     answers with its input after `parameters.seconds`
    failing  raises, which MLServer turns into a 500 of plain text
    late     loads as long as the mood is `loading`
    broken   cannot be loaded
    counts   how many inferences began, and how many go on; `parameters.mood` sets the mood

Moods: `well`; `hang` and `cut` happen to streams after their first answer; `sick`: the model `slow` is not ready,
so the server is not; `loading`.

`python mlserver_models.py start FOLDER` is `mlserver start FOLDER` that ends with its standard input.
"""

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

mlserver: Any = importlib.import_module("mlserver")
types: Any = importlib.import_module("mlserver.types")
errors: Any = importlib.import_module("mlserver.errors")

if not hasattr(mlserver, "kept_by_test_models"):
    mlserver.kept_by_test_models = ({"begun": 0, "busy": 0}, ["well"], list[Any]())
KEPT: tuple[dict[str, int], list[str], list[Any]] = mlserver.kept_by_test_models
"""What outlives this module: MLServer loads it again whenever it looks at its repository."""
COUNTS, MOOD, SLOW = KEPT
TICK = 0.02
"""Seconds between two looks at the mood."""


def response(model: Any, *outputs: Any) -> Any:
    """Return an answer of a model with these tensors."""
    return types.InferenceResponse(model_name=model.name, model_version=model.version, outputs=list(outputs))


def output(name: str, datatype: str, shape: list[int], data: list[Any], parameters: Any = None) -> Any:
    """Return one tensor of an answer."""
    return types.ResponseOutput(name=name, datatype=datatype, shape=shape, data=data, parameters=parameters)


def same(tensor: Any) -> Any:
    """Return an input as an output: MLServer puts request headers into parameters, these are left out."""
    kept = None
    if tensor.parameters is not None and tensor.parameters.content_type is not None:
        kept = types.Parameters(content_type=tensor.parameters.content_type)
    return types.ResponseOutput(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=tensor.data, parameters=kept
    )


class Counted(mlserver.MLModel):
    """A model whose inferences are counted."""

    async def load(self) -> bool:
        """Be ready at once."""
        return True

    async def predict(self, payload: Any) -> Any:
        """Count, and answer."""
        COUNTS["begun"] += 1
        COUNTS["busy"] += 1
        try:
            return await self.answer(payload)
        finally:
            COUNTS["busy"] -= 1

    async def answer(self, payload: Any) -> Any:
        """Answer one request."""
        return response(self, *map(same, payload.inputs))


class Echo(Counted):
    """Gives back what it gets."""

    async def predict_stream(self, payloads: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Answer once for each element of the first input; `parameters.pause` are seconds between them."""
        async for payload in payloads:
            COUNTS["begun"] += 1
            COUNTS["busy"] += 1
            try:
                first = payload.inputs[0]
                for element in list(first.data):
                    yield response(self, output(first.name, first.datatype, [1], [element]))
                    if MOOD[0] == "cut":
                        raise RuntimeError("the stream is cut")
                    await asyncio.sleep(3600.0 if MOOD[0] == "hang" else number(payload, "pause", 0.0))
            finally:
                COUNTS["busy"] -= 1


class Add(Counted):
    """Adds two tensors."""

    async def answer(self, payload: Any) -> Any:
        """Add them."""
        found = {tensor.name: tensor for tensor in payload.inputs}
        if set(found) != {"a", "b"} or found["a"].shape != found["b"].shape:
            raise errors.InferenceError("add takes two tensors of one shape, a and b")
        data = [x + y for x, y in zip(found["a"].data, found["b"].data, strict=True)]
        return response(self, output("sum", "FP32", found["a"].shape, data))


class Slow(Counted):
    """Takes its time."""

    async def load(self) -> bool:
        """Be ready at once, and known to those who set the mood."""
        SLOW.append(self)
        return True

    async def answer(self, payload: Any) -> Any:
        """Wait, then answer."""
        await asyncio.sleep(number(payload, "seconds", 1.0))
        return await super().answer(payload)


class Failing(Counted):
    """Has a defect."""

    async def answer(self, payload: Any) -> Any:  # noqa: ARG002 - the runtime's shape
        """Raise."""
        raise RuntimeError("the model has a defect")


class Late(Counted):
    """Loads as long as the mood is `loading`."""

    async def load(self) -> bool:
        """Load."""
        while MOOD[0] == "loading":  # noqa: ASYNC110 - the mood is no event, since it has many readers
            await asyncio.sleep(TICK)
        return True


class Broken(Counted):
    """Cannot be loaded."""

    async def load(self) -> bool:
        """Raise."""
        raise RuntimeError("the weights are not there")


class Counts(mlserver.MLModel):
    """Says what the others did, and sets the mood."""

    async def load(self) -> bool:
        """Be ready at once."""
        return True

    async def predict(self, payload: Any) -> Any:
        """Set the mood if one is given, and return the counts."""
        MOOD[0] = getattr(payload.parameters, "mood", MOOD[0])
        for model in SLOW:
            model.ready = MOOD[0] != "sick"
        return response(self, *(output(name, "INT64", [1], [value]) for name, value in COUNTS.items()))


def number(payload: Any, name: str, default: float) -> float:
    """Return a parameter of a request."""
    return default if payload.parameters is None else float(getattr(payload.parameters, name, default))


def until_input_ends() -> None:
    """End the process when its standard input does, so that it never outlives who started it."""
    while sys.stdin.buffer.read(4096):
        continue
    os._exit(0)


def main() -> None:
    """Run MLServer's own command line."""
    threading.Thread(target=until_input_ends, daemon=True).start()
    importlib.import_module("mlserver.cli").main()


if __name__ == "__main__":
    main()
