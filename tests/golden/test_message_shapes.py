"""Message shapes of version 1 are frozen: what was written then is read now, and now only adds to it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

HERE = Path(__file__).parent
FROZEN = HERE / "v1"


def samples() -> dict[str, msgspec.Struct]:
    spec = importlib.util.spec_from_file_location("golden_samples", HERE / "samples.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.SAMPLES


SAMPLES = samples()


def written(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


@pytest.mark.parametrize("name", sorted(SAMPLES))
@pytest.mark.row("003:41")
def test_a_message_of_version_1_is_read_in_full(name: str) -> None:
    frozen = (FROZEN / f"{name}.json").read_bytes()
    then = msgspec.json.decode(frozen)
    now = msgspec.json.decode(written(msgspec.json.decode(frozen, type=type(SAMPLES[name]))))
    assert {key: now[key] for key in then} == then  # what was added since has its default


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_what_is_written_now_only_adds_to_version_1(name: str) -> None:
    then = msgspec.json.decode((FROZEN / f"{name}.json").read_bytes())
    now = msgspec.json.decode(written(SAMPLES[name]))
    assert set(then) <= set(now)
    assert {key: now[key] for key in then} == then


def test_no_frozen_message_is_without_a_reader() -> None:
    assert {path.stem for path in FROZEN.glob("*.json")} == set(SAMPLES)
