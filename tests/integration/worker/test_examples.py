"""The handlers of `examples/` run as written, on the loop, in a thread and in a process."""

import sys
from pathlib import Path

import pytest

from hostler.testing.fabric import Fabric
from hostler.worker.handlers import Handler, HandlerSet

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Handler]:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    return {each.spec.name: each for each in HandlerSet.load(["handlers"])}


@pytest.mark.row("002:68")
async def test_the_example_handlers_run_as_written(
    fabric: Fabric, handlers: dict[str, Handler], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    async with fabric.worker(*(each.function for each in handlers.values())):
        hard = await fabric.submit("primes.count", {"below": 20_000})
        quick = [await fabric.submit("text.count", {"text": f"word {number}"}) for number in range(20)]
        for job in quick:
            assert (await fabric.result(job))["words"] == 2
        assert await fabric.result(await fabric.submit("file.lines", {"path": str(tmp_path / "a.txt")})) == 2
        assert await fabric.result(hard, within=30) == 2262
        bad = await fabric.ended(await fabric.submit("file.lines", {"path": str(tmp_path / "none")}))
        assert bad.error is not None
        assert bad.error.class_ == "invalid_input"
