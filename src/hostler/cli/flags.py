"""Flags that commands share, and the settings that they set."""

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Group, Parameter

SHARED = Group("Shared options", sort_key=100)

Tethered = Annotated[bool, Parameter(name="--tether", negative="", show=False)]
"""End when the process at the other end of stdin does; for processes that another one started."""


@Parameter(name="*", group=SHARED)
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    json: Annotated[bool, Parameter(negative="")] = False
    """Print JSON: one document on one line, or lines of which the last is the outcome."""
    config: str | None = None
    """Settings file; `HOSTLER_CONFIG`, else hostler.toml in the working directory."""

    def settings(self) -> dict[str, tuple[str, Any]]:
        """Return the settings that were given as flags: path, flag as typed, value."""
        return {}


@Parameter(name="*", group=SHARED)
@dataclass(frozen=True, kw_only=True)
class ToGateway(Common):
    """Commands of users: they speak to a gateway."""

    url: str | None = None
    """Address of the gateway; `HOSTLER_URL`, else http://127.0.0.1:7700."""
    key: str | None = None
    """Credential for the gateway, not an idempotency key; `HOSTLER_KEY`."""

    def settings(self) -> dict[str, tuple[str, Any]]:
        """Return the settings that were given as flags."""
        return given({"url": ("--url", self.url), "key": ("--key", self.key)})


@Parameter(name="*", group=SHARED)
@dataclass(frozen=True, kw_only=True)
class ToEngine(Common):
    """Processes and administration: they speak to the engine."""

    engine: str | None = None
    """URL of a server that runs: unix://, redis:// or rediss://; `HOSTLER_ENGINE`."""
    data: str | None = None
    """Folder of the embedded engine; `HOSTLER_DATA`, else .hostler."""
    wait_engine: float | None = None
    """Seconds to wait for an engine that cannot be reached yet."""
    allow_degraded: Annotated[bool | None, Parameter(negative="")] = None
    """Run on an engine that may lose acknowledged jobs, and say so everywhere."""
    log_level: str | None = None
    """debug, info, warning or error."""

    def settings(self) -> dict[str, tuple[str, Any]]:
        """Return the settings that were given as flags."""
        return given(
            {
                "engine.url": ("--engine", self.engine),
                "engine.data": ("--data", self.data),
                "engine.wait": ("--wait-engine", self.wait_engine),
                "engine.allow_degraded": ("--allow-degraded", self.allow_degraded),
                "log.level": ("--log-level", self.log_level),
            }
        )


def given(flags: dict[str, tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Return the flags that were given."""
    return {path: flag for path, flag in flags.items() if flag[1] is not None and flag[1] != ()}
