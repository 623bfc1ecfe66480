"""What a rig reads from what its processes leave: secrets wherever they stand, and grants as workers logged them."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from hostler.chaos.record import Granted
from hostler.cli.rig.granted import grants
from hostler.cli.rig.secrets import CHUNK, Canaries, searched
from hostler.contracts.limit import Limit, LimitKind, Want

CANARIES = Canaries(service_key="a-key-of-a-service", engine_password="a-password")


@pytest.mark.parametrize("place", [0, 100, CHUNK - 3, CHUNK, 3 * CHUNK - 1])
@pytest.mark.parametrize("secret", CANARIES.all())
def test_a_secret_is_found_wherever_it_stands_in_a_file(place: int, secret: str, tmp_path: Path) -> None:
    file = tmp_path / "worker-1.log"
    file.write_bytes(b"." * place + secret.encode() + b"." * (4 * CHUNK))
    found = list(searched([tmp_path / "gone.log", file], CANARIES))
    assert all(one.source == "worker-1.log" for one in found)
    assert any(secret in one.text for one in found)


def test_a_file_without_a_secret_is_said_to_have_been_searched(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a-key-of" * 10)
    assert [one.text for one in searched([tmp_path / "log"], CANARIES)] == ["80 bytes were searched for secrets"]


def test_grants_of_calls_in_a_time_are_read_from_a_log_and_what_was_cut_or_is_another_record_is_passed_over(
    tmp_path: Path,
) -> None:
    rate = Limit(name="calls", kind=LimitKind.RATE, most=4, per=2.0)
    wants = (
        Want(limit=rate),
        Want(limit=Limit(name="gate", kind=LimitKind.RATE, most=1, per=1.0), units=0),
        Want(limit=Limit(name="places", kind=LimitKind.IN_FLIGHT, most=2)),
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    line = msgspec.json.encode({"event": "limit.granted", "level": "debug", "granted_at": at, "wants": wants})
    other = msgspec.json.encode({"event": "http.request", "route": "limit.granted"})
    (tmp_path / "log").write_bytes(b"\n".join((line, other, b"no JSON: limit.granted", line[:-40])))
    assert grants(tmp_path / "log") == (Granted(limit=rate, at=at, units=1),)
