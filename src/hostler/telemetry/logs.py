"""Logs of one process: one shape, on stderr, with secrets taken out."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from hostler.kernel.settings import LogSettings

HIDDEN: Final = "[hidden]"
_SECRET_KEYS: Final = re.compile(
    r"(authorization|password|passwd|secret|token|api_?key|cookie|credential)", re.IGNORECASE
)
_SECRET_TEXT: Final = re.compile(
    r"(Bearer\s+\S+|sk-[A-Za-z0-9_-]{16,}|hst_[A-Za-z0-9_]{16,}|whsec_[A-Za-z0-9+/=]{16,}|(?<=://)[^/\s:@]*:[^/\s@]+(?=@))"
)


def without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide values whose name or look says that they are secrets."""
    for key, value in event.items():
        if _SECRET_KEYS.search(key):
            event[key] = HIDDEN
        elif isinstance(value, str):
            event[key] = _SECRET_TEXT.sub(HIDDEN, value)
    return event


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    known = {key: event.pop(key) for key in ("at", "level", "event", "role", "logger") if key in event}
    return msgspec.json.encode({**known, **_plain(event)}, enc_hook=str).decode()


def _plain(event: MutableMapping[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in event.items() if not str(key).startswith("_")}


def configure(settings: LogSettings, *, role: str, stream: TextIO | None = None) -> None:
    """Make structlog and the standard library's `logging` write one shape to `stream` (stderr unless set).

    A record has `at` (RFC 3339, UTC), `level`, `event`, `role` and what was bound with
    `structlog.contextvars`; in JSON it is one object on one line. Calling it again replaces what was set.
    """

    def with_role(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("role", role)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        with_role,
        structlog.processors.format_exc_info,
        without_secrets,
    ]
    last: Processor = (
        _json if settings.format == "json" else structlog.dev.ConsoleRenderer(colors=False, timestamp_key="at")
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of one part; its records are named as the catalogue says."""
    return structlog.stdlib.get_logger(f"hostler.{name}")
