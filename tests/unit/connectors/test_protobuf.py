"""Messages by description: plain values in, plain values out, beside whatever stubs others load."""

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.connectors.faults import ServiceFaultError
from hostler.connectors.services.simulation.descriptor import SIMULATION
from hostler.connectors.transports.protobuf import Messages
from hostler.contracts.failure import FailureClass

MESSAGES = Messages("hostler.simulation.v1", SIMULATION)
ROOT = Path(__file__).resolve().parents[3]
PROTO = ROOT / "src/hostler/connectors/services/simulation"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    fence: int
    kind: str
    input_json: bytes
    seconds_left: float | None = None


@settings(deadline=None)  # the first example loads the types
@given(
    TEXT,
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=50),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_values_come_back_as_they_went(name: str, fence: int, data: bytes, left: float | None) -> None:
    values: dict[str, Any] = {"id": name, "fence": fence, "kind": name, "input_json": data}
    values |= {} if left is None else {"seconds_left": left}
    found = MESSAGES.decode("Submission", MESSAGES.encode("Submission", values), Submission)
    assert found == Submission(id=name, fence=fence, kind=name, input_json=data, seconds_left=left)


def test_enums_maps_and_messages_in_messages_are_plain_values() -> None:
    event = {"cursor": "1-1", "run": {"id": "a", "state": "succeeded", "fraction": 0.5}}
    found = MESSAGES.decode("RunEvent", MESSAGES.encode("RunEvent", event), dict[str, Any])
    assert (found["cursor"], found["run"]["state"], found["run"]["fraction"]) == ("1-1", "succeeded", 0.5)
    view = {"kinds": ["a", "b"], "labels": {"ü": "€"}}
    found = MESSAGES.decode("CapabilitiesView", MESSAGES.encode("CapabilitiesView", view), dict[str, Any])
    assert (found["kinds"], found["labels"]) == (["a", "b"], {"ü": "€"})


@pytest.mark.parametrize(
    "values",
    [{"fence": 2**63}, {"fence": "1"}, {"id": 7}, {"id": "\ud800"}, {"nothing": 1}, {"input_json": "text"}],
    ids=str,
)
def test_what_a_message_cannot_carry_is_bad_input(values: dict[str, Any]) -> None:
    with pytest.raises(ServiceFaultError) as caught:
        MESSAGES.encode("Submission", values)
    assert caught.value.failure.class_ is FailureClass.INVALID_INPUT


@settings(deadline=None)  # the first example loads the types
@given(st.binary(max_size=100))
def test_whatever_bytes_come_it_is_a_message_or_a_fault(data: bytes) -> None:
    with contextlib.suppress(ServiceFaultError):
        MESSAGES.decode("RunEnd", data, dict[str, Any])


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"], ids=["tag", "short", "utf8"])
def test_bytes_that_are_no_message_are_off_the_protocol(data: bytes) -> None:
    with pytest.raises(ServiceFaultError) as caught:
        MESSAGES.decode("RunRequest", data, dict[str, Any])
    assert caught.value.failure.class_ is FailureClass.TRANSIENT
    assert caught.value.failure.details == {"protocol": True}


def test_a_message_of_another_shape_is_off_the_protocol() -> None:
    with pytest.raises(ServiceFaultError, match="that is not its protocol"):
        MESSAGES.decode("RunView", b"", Submission)


def test_stubs_that_somebody_else_compiled_from_the_same_description_can_be_loaded_too(tmp_path: Path) -> None:
    protoc: Any = importlib.import_module("grpc_tools.protoc")
    assert protoc.main(["protoc", f"-I{PROTO}", f"--python_out={tmp_path}", "simulation.proto"]) == 0
    sys.path.insert(0, str(tmp_path))
    try:
        stubs: Any = importlib.import_module("simulation_pb2")
    finally:
        sys.path.remove(str(tmp_path))
    data = MESSAGES.encode("RunView", {"id": "a", "fence": 3, "state": "running"})
    assert (stubs.RunView.FromString(data).fence, stubs.RunView.FromString(data).state) == (3, 2)


def test_the_descriptions_are_those_of_the_proto_files() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        script: Any = importlib.import_module("generate_descriptors")
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    assert script.main(["--check"]) == 0
