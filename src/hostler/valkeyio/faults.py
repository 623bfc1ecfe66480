"""Every exception of the client library, as an error of ours: the one place where they are judged."""

import contextlib
import ssl
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Final

from redis import exceptions as foreign

from hostler.kernel.errors import (
    CapacityError,
    EngineDeniedError,
    EngineTimeoutError,
    EngineUnavailableError,
    EngineUnsafeError,
    HostlerError,
    InternalError,
    LibraryMismatchError,
)

_FULL_RETRY_S = 5.0

NOTHING_SENT: Final = "nothing was sent"
"""Note of an exception that came before a command could be sent."""

FAULTS: Mapping[type[Exception], type[HostlerError]] = MappingProxyType(
    {
        foreign.AuthenticationError: EngineDeniedError,
        foreign.AuthorizationError: EngineDeniedError,
        foreign.ExternalAuthProviderError: EngineDeniedError,
        foreign.AuthenticationWrongNumberOfArgsError: EngineDeniedError,
        foreign.NoPermissionError: EngineDeniedError,
        foreign.MaxConnectionsError: EngineTimeoutError,
        foreign.BusyLoadingError: EngineUnavailableError,
        foreign.ConnectionError: EngineUnavailableError,
        foreign.TimeoutError: EngineTimeoutError,
        foreign.InvalidResponse: EngineUnavailableError,
        foreign.ReadOnlyError: EngineUnavailableError,
        foreign.MasterDownError: EngineUnavailableError,
        foreign.ClusterDownError: EngineUnavailableError,
        foreign.TryAgainError: EngineUnavailableError,
        foreign.ClusterError: EngineUnavailableError,
        foreign.SlotNotCoveredError: EngineUnavailableError,
        # In a cluster `spread` deals with these: here a URL names one of its nodes.
        foreign.MovedError: EngineUnsafeError,
        foreign.AskError: EngineUnsafeError,
        foreign.OutOfMemoryError: CapacityError,
        # The rest is a wrong call of ours.
        foreign.ClusterCrossSlotError: InternalError,
        foreign.CrossSlotTransactionError: InternalError,
        foreign.InvalidPipelineStack: InternalError,
        foreign.RedisClusterException: InternalError,
        foreign.ExecAbortError: InternalError,
        foreign.NoScriptError: InternalError,
        foreign.ModuleError: InternalError,
        foreign.NoSuchFieldsetError: InternalError,
        foreign.ResponseError: InternalError,
        foreign.DataError: InternalError,
        foreign.PubSubError: InternalError,
        foreign.WatchError: InternalError,
        foreign.LockNotOwnedError: InternalError,
        foreign.LockError: InternalError,
        foreign.RedisError: InternalError,
        foreign.ChildDeadlockedError: InternalError,
        foreign.IncorrectPolicyType: InternalError,
        # What the event loop raises under the client.
        TimeoutError: EngineTimeoutError,
        OSError: EngineUnavailableError,
    }
)
"""Judged by the nearest class in an exception's line of ancestors, so a new subclass of theirs is never unmapped."""

REPLIES: Mapping[str, tuple[type[HostlerError], str]] = MappingProxyType(
    {
        "BUSY": (EngineUnavailableError, "is busy with a long function"),
        "LOADING": (EngineUnavailableError, "is loading its data"),
        "MASTERDOWN": (EngineUnavailableError, "has lost its primary"),
        "UNBLOCKED": (EngineUnavailableError, "changed its role and ended a wait"),
        "You can't write against a read only replica": (EngineUnavailableError, "is a replica now"),
        # In a cluster, while a slot is moved key by key: of Valkey, and of Redis.
        "Attempted to access a non local key": (EngineUnavailableError, "is moving these keys to another node"),
        "Script attempted to access a non local key": (EngineUnavailableError, "is moving these keys to another node"),
        "MISCONF": (EngineUnavailableError, "cannot write to its disk and refuses changes: free some space there"),
        "NOREPLICAS": (EngineUnavailableError, "has too few replicas and refuses changes"),
        "NOAUTH": (EngineDeniedError, "wants a password: put it into the URL"),
        "Authentication required": (EngineDeniedError, "wants a password: put it into the URL"),
        "invalid username-password pair": (EngineDeniedError, "does not accept this user and password"),
        "WRONGPASS": (EngineDeniedError, "does not accept this user and password"),
        "ERR Function not found": (LibraryMismatchError, "does not have the function library"),
    }
)
"""Replies that have no class of their own in the client library, by how their text begins."""

_WORDS: Mapping[type[HostlerError], str] = MappingProxyType(
    {
        EngineDeniedError: "the engine does not let this user do it",
        EngineTimeoutError: "the engine did not answer in time",
        EngineUnavailableError: "the engine cannot be reached",
        EngineUnsafeError: "the engine is one node of a cluster: give the cluster's URL, as redis+cluster://",
        CapacityError: "the engine's memory is full: raise `maxmemory`, or purge jobs that have ended",
        InternalError: "the engine refused a call of Hostler",
    }
)


def translate(error: BaseException) -> HostlerError | None:
    """Return our error for one that the client library or its sockets raised; None for anything else."""
    if isinstance(error, HostlerError):
        return error
    ours = _translated(error)
    if isinstance(ours, EngineUnavailableError | EngineTimeoutError) and _unsent(error):
        ours.facts["executed"] = False
    return ours


def _unsent(error: BaseException) -> bool:
    """Tell whether nothing was executed: the command was not sent, or was refused by who got it."""
    refused = isinstance(error, foreign.ResponseError | foreign.BusyLoadingError | foreign.MaxConnectionsError)
    return refused or NOTHING_SENT in getattr(error, "__notes__", ())


def _translated(error: BaseException) -> HostlerError | None:
    if type(error) is foreign.ConnectionError and isinstance(error.__cause__, foreign.RedisError):
        error = error.__cause__  # what a new connection was told, wrapped by the library as if nobody were there
    below = error.__context__
    if isinstance(below, ssl.SSLCertVerificationError):
        return EngineDeniedError(
            f"the engine's certificate is not trusted ({below.verify_message.rstrip('.')}): name the file of its "
            "authority with ?ssl_ca_certs= in the URL, and the host as the certificate names it",
            cause=type(below).__name__,
        )
    for ancestor in type(error).__mro__:
        kind = FAULTS.get(ancestor)
        if kind is not None:
            return _ours(kind, error)
    return None


def _ours(kind: type[HostlerError], error: BaseException) -> HostlerError:
    said = str(error)
    if isinstance(error, foreign.ResponseError | foreign.ConnectionError):
        for start, (better, words) in REPLIES.items():
            if said.startswith(start):
                return better(f"the engine {words} ({said})", cause=type(error).__name__)
    message = f"{_WORDS[kind]} ({said})" if said else _WORDS[kind]
    if issubclass(kind, CapacityError):
        return kind(message, retry_after=_FULL_RETRY_S, cause=type(error).__name__)
    return kind(message, cause=type(error).__name__)


@contextlib.contextmanager
def mapped() -> Generator[None]:
    """Turn what the client library raises inside into errors of ours; put nothing but engine calls inside.

    Our own errors and cancellation pass through. The foreign exception stays as `__cause__`.
    """
    try:
        yield
    except HostlerError:
        raise
    except Exception as error:  # each is translated or raised as it is
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error
