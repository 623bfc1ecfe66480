"""Random requests from the gateway's own description, against a live gateway on the real engine."""

import asyncio
import sys
from pathlib import Path

import pytest

from hostler.broker.foreman import EngineForeman
from hostler.contracts.queue import KindSpec
from hostler.valkeyio.engine import Engine

from .conftest import KIND, Opening

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
BUDGET = 45
"""Seconds."""


@pytest.mark.timeout(150)
async def test_no_request_of_our_own_description_finds_a_defect_or_an_undescribed_answer(
    engine: Engine, opening: Opening, tmp_path: Path
) -> None:
    await EngineForeman(engine).declare_kind(KindSpec(name=KIND))
    async with opening(engine, long_poll_max=0.05) as house:
        for _ in range(3):
            await house.submit()
        fuzzer = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{house.url}/v1/openapi.json",
            "--url",
            house.url,
            "--checks",
            ",".join(CHECKS),
            "--phases",
            "coverage,fuzzing",
            "--max-examples",
            "10",
            "--max-time",
            str(BUDGET),
            "--generation-deterministic",
            "--no-shrink",
            "--exclude-path-regex",
            "/events$",
            "--suppress-health-check",
            "all",
            "--warnings",
            "off",
            "--no-color",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await fuzzer.communicate()
        finally:
            if fuzzer.returncode is None:
                fuzzer.kill()
                await fuzzer.wait()
        text = said.decode()
        assert fuzzer.returncode == 0, text[-6000:]
        assert "Tested: 44" in text, text[-3000:]
