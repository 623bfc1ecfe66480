"""The comparison with peers runs: a table with a figure for each, and what each gives up."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.timeout(180)
@pytest.mark.row("000:129", "002:297")
async def test_hostler_a_peer_and_a_bare_list_are_measured_in_one_run() -> None:
    words = ("--peers", "hostler,huey,bare", "--cells", "enqueue-batched,noop", "--sync", "everysec", "--seconds", "2")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.peers", *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    said = out.decode()
    assert process.returncode == 0, said
    assert "| | Hostler | Huey | Bare |" in said
    for cell in ("enqueue-batched", "noop"):
        row = re.search(rf"^\| {cell} \| ([\d,]+)/s \| ([\d,]+)/s \| ([\d,]+)/s \|$", said, re.MULTILINE)
        assert row is not None, said
        assert all(int(figure.replace(",", "")) > 0 for figure in row.groups()), said
    assert "- Huey gives up: " in said
