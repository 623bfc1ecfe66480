"""A command and its surroundings, as their owner writes them under `connectors.<name>.options` of a `process` entry."""

from typing import Annotated, Final

from msgspec import Meta, Struct, field

from hostler.connectors.services.generic.declared import DeclaredKind
from hostler.connectors.transports.process import Command, ResourceLimits, environment_of
from hostler.contracts.failure import FailureClass
from hostler.kernel.units import Bytes, Name, Seconds

PLAIN: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""Variables that a command inherits unless others are named; the values of any other are kept out of what it says."""
SHORTEST_SECRET: Final = 4
Exit = Annotated[str, Meta(pattern=r"^([0-9]{1,3}|SIG[A-Z0-9]+)\Z", description="a status or signal, as 3 or SIGKILL")]


class ProcessOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `process`."""

    command: tuple[str, ...] = ()
    """The program and its arguments; no shell reads them, and no job changes them."""
    kinds: tuple[DeclaredKind, ...] = ()
    service: Name | None = None
    """What the service is called; `process` unless given."""
    served: bool = False
    """One process does job after job, and is kept; otherwise each job has a process of its own."""
    ready: bool = False
    """A served command says `{"type": "ready"}` when it has loaded; the stage `load` waits for it."""
    health: tuple[str, ...] = ()
    """A command that ends with status 0 while all is well."""
    models: tuple[str, ...] = ()
    directory: str | None = None
    """Where it runs; an empty folder for each process unless given."""
    inherit: tuple[str, ...] = PLAIN
    """Variables of the worker that the command sees."""
    environment: dict[str, str] = {}
    """Variables that it sees besides, or instead."""
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    exits: dict[Exit, FailureClass] = {}
    """What an exit status or signal means; `transient` unless it says."""
    grace: Annotated[float, Meta(ge=0, le=60)] = 2.0
    """Seconds between SIGTERM and SIGKILL to its process group."""
    message_limit: Bytes = 16_777_216
    """Largest line."""
    output_limit: Bytes = 268_435_456
    """Largest output for one job, or of a served command in its life."""
    timeout: Seconds = 5.0
    """Limit of the health command."""

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError('write the program and its arguments: command = ["python3", "paint.py"]')
        names = [kind.name for kind in self.kinds]
        if not names:
            raise ValueError('write at least one kind: kinds = [{name = "image.paint"}]')
        if len(set(names)) < len(names):
            raise ValueError(f"kinds: a name is written twice in {', '.join(names)}")
        if self.ready and not self.served:
            raise ValueError("ready is about a served command: write served = true")

    def program(self, arguments: tuple[str, ...], *, dialogue: bool) -> Command:
        """Return a command in these surroundings."""
        hidden = environment_of(tuple(name for name in self.inherit if name not in PLAIN), {})
        return Command(
            arguments=arguments,
            environment=environment_of(self.inherit, self.environment),
            directory=self.directory,
            limits=self.limits,
            exits={"SIGXCPU": FailureClass.TIMEOUT, **self.exits},
            secrets=tuple(value for value in hidden.values() if len(value) >= SHORTEST_SECRET),
            grace=self.grace,
            dialogue=dialogue,
        )
