"""Every exception of the client library is judged, in one place."""

import asyncio
import inspect

import pytest
from redis import exceptions as foreign

from hostler.kernel.errors import (
    CapacityError,
    EngineDeniedError,
    EngineTimeoutError,
    EngineUnavailableError,
    HostlerError,
    InternalError,
    LeaseLostError,
    LibraryMismatchError,
)
from hostler.valkeyio.faults import FAULTS, mapped, translate

LIBRARY = [
    kind
    for _, kind in inspect.getmembers(foreign, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == foreign.__name__
]


def make(kind: type[Exception]) -> Exception:
    if issubclass(kind, foreign.AskError):
        return kind("3999 127.0.0.1:6381")
    return kind("what the server said")


def test_the_library_has_the_exceptions_that_are_walked_here() -> None:
    assert len(LIBRARY) > 30
    assert foreign.ReadOnlyError in LIBRARY


@pytest.mark.parametrize("kind", LIBRARY)
def test_every_exception_of_the_library_has_a_row_of_its_own(kind: type[Exception]) -> None:
    assert kind in FAULTS


@pytest.mark.parametrize("kind", LIBRARY)
def test_every_exception_of_the_library_becomes_an_error_of_ours_with_its_cause(kind: type[Exception]) -> None:
    with pytest.raises(HostlerError) as caught, mapped():
        raise make(kind)
    assert type(caught.value.__cause__) is kind
    assert type(caught.value) is FAULTS[kind]
    assert caught.value.facts["cause"] == kind.__name__


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (foreign.ConnectionError("gone"), EngineUnavailableError),
        (foreign.BusyLoadingError("loading"), EngineUnavailableError),
        (foreign.ReadOnlyError("replica"), EngineUnavailableError),
        (foreign.TimeoutError("slow"), EngineTimeoutError),
        (foreign.MaxConnectionsError("busy"), EngineTimeoutError),
        (TimeoutError(), EngineTimeoutError),
        (ConnectionRefusedError(111, "refused"), EngineUnavailableError),
        (FileNotFoundError(2, "no socket"), EngineUnavailableError),
        (foreign.OutOfMemoryError("full"), CapacityError),
        (foreign.NoPermissionError("no"), EngineDeniedError),
        (foreign.AuthenticationError("wrong"), EngineDeniedError),
        (foreign.ResponseError("BUSY a function runs"), EngineUnavailableError),
        (foreign.ResponseError("MISCONF disk"), EngineUnavailableError),
        (foreign.ResponseError("WRONGPASS invalid"), EngineDeniedError),
        (foreign.ConnectionError("NOAUTH HELLO must be called"), EngineDeniedError),
        (foreign.ResponseError("ERR Function not found"), LibraryMismatchError),
        (foreign.ResponseError("ERR syntax"), InternalError),
    ],
)
def test_what_happened_decides_which_error_it_is(error: Exception, ours: type[HostlerError]) -> None:
    assert type(translate(error)) is ours


def test_a_subclass_that_the_library_adds_later_is_judged_by_its_parent() -> None:
    class NewError(foreign.ReadOnlyError):
        pass

    assert type(translate(NewError("later"))) is EngineUnavailableError


def test_our_own_errors_and_cancellation_pass_through() -> None:
    with pytest.raises(LeaseLostError), mapped():
        raise LeaseLostError("lost")
    with pytest.raises(asyncio.CancelledError), mapped():
        raise asyncio.CancelledError
    with pytest.raises(KeyError), mapped():
        raise KeyError("a defect of ours stays what it is")
