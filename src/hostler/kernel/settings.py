"""The settings tree: one frozen value per process, its branches handed to the parts that need them.

How it is filled (defaults < imported mapping < `hostler.toml` < `HOSTLER_*` < flags) is `kernel.sources`;
nothing reads the environment afterwards. A variable's name follows from the path: `gateway.bind` is
`HOSTLER_GATEWAY_BIND`; the few short names are in `kernel.sources`.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

from hostler.kernel.units import Bytes, Json, Name, Port, Seconds

Positive = Annotated[int, Meta(ge=1)]

Address = Annotated[
    str, Meta(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}\Z", description="HOST:PORT, as 127.0.0.1:7700")
]
"""Where to listen; port 0 takes any free one."""

HttpUrl = Annotated[str, Meta(pattern=r"^https?://[^/?#\s]+", description="a URL that begins with http:// or https://")]

EngineUrl = Annotated[
    str,
    Meta(
        pattern=r"^(unix|rediss?|(redis|valkey)s?\+(sentinel|cluster))://.+",
        description="a URL that begins with unix://, redis://, rediss://, redis+sentinel:// or redis+cluster://",
    ),
]


class EngineSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the engine is and how it is spoken to."""

    url: EngineUrl | None = None
    """Of a server that runs already: `unix://`, `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/NAME`
    of the sentinels that watch it under that name, or `redis+cluster://host:port,host:port` of some nodes of a cluster;
    excludes `data`."""
    data: str | None = None
    """Folder of the embedded engine; `.hostler` in the working directory unless `url` is given."""
    allow_degraded: bool = False
    """Run on an engine whose configuration may lose acknowledged jobs, and say so everywhere."""
    command_timeout: Seconds = 5.0
    """Longest wait for the answer to one command."""
    connect_timeout: Seconds = 3.0
    """Longest wait for a connection."""
    connections: Positive = 32
    """Most connections of this process to one server, for each use: calls of functions, other commands, waits."""
    wait: Seconds = 0.0
    """How long to wait at start for an engine that cannot be reached yet."""


class GatewaySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP side."""

    bind: Address = "127.0.0.1:7700"
    """Where it listens; port 0 takes any free one."""
    body_limit: Bytes = 10_485_760
    """Largest request body, blobs excepted."""
    long_poll_max: Seconds = 60.0
    """Longest time for which a request may ask to wait for news."""
    streams: Positive = 1000
    """Most long polls and event streams open at the same time; one more is told to come back."""
    metrics_port: Port | None = None
    """Serves `/metrics` on this port of 127.0.0.1 as well as at `bind`."""


class WorkerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One worker process."""

    id: Name | None = None
    """Opaque; made up at start unless given."""
    slots: Annotated[int, Meta(ge=1, le=1024)] = 8
    """Jobs that it runs at the same time."""
    connectors: str = ""
    """SPEC like `simulation-http:2,openai-http`; a name is a worker type or a connector."""
    handlers: tuple[str, ...] = ()
    """Modules of handlers (`pkg.module`)."""
    labels: dict[str, str] = {}
    """What jobs may need of it by `labels.NAME`."""
    heartbeat: Seconds = 3.0
    """How often it says that it lives, and renews what it holds."""
    ttl: Seconds = 10.0
    """It is lost when it has said nothing for this long."""
    grace: Seconds = 30.0
    """How long running jobs may go on after SIGTERM before they are given back."""
    progress_interval: Seconds = 0.2
    """Progress of one job is reported at most this often; the latest wins."""
    probe_interval: Seconds = 2.0
    """How often each endpoint is asked how it is."""
    idle_poll: Seconds = 4.0
    """Longest sleep between claims when no wake-up comes."""
    dwell: Seconds = 30.0
    """How long a model stays in an endpoint that holds one at a time while jobs wait for it, or ten loads, if less."""
    metrics_port: Port | None = None
    """Serves `/metrics` on this port of 127.0.0.1; nowhere unless set."""


Price = Annotated[float, Meta(ge=0, le=1_000_000)]


class PriceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a call costs, in cents."""

    call: Price = 0.0
    """Each call."""
    input: Price = 0.0
    """A million tokens of what is sent."""
    output: Price = 0.0
    """A million tokens of what comes back."""


class ConnectorSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One configured connector (worker type), by name in `connectors`."""

    connector: str
    """Name of the connector, `<service>-<transport>`."""
    url: str | None = None
    """Base URL of the endpoint; with `:N` in a SPEC, instance n uses port + n * `port_increment`."""
    dns: str | None = None
    """Name whose places are all endpoints, followed as they change: an SRV name (`_sim._tcp.example.org`) gives
    hosts and ports, any other name gives addresses, for the port of `url` or the conventional one."""
    port_increment: Positive = 1
    """How far apart the ports of two instances are."""
    slots: Positive | None = None
    """Work in flight per endpoint; what the endpoint says unless set."""
    limits: tuple[str, ...] = ()
    """What all workers together may ask: 3/s, 60/min per tenant, 100000 tokens/min, 500 cents/day, in_flight 4."""
    price: PriceSettings | None = None
    """What limits of cents count by."""
    labels: dict[str, str] = {}
    """What jobs may need of its endpoints by `labels.NAME`, beside the worker's own."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the credential; never the credential itself."""
    trust_announced: bool = False
    """Whether endpoints that somebody announced get the credential too; else only configured ones and names do."""
    options: dict[str, Json] = {}
    """The connector's own options, judged by its own type."""


class DiscoverySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How endpoints are found that no URL names."""

    nameservers: tuple[Address, ...] = ()
    """Servers that are asked for names, as 10.0.0.2:53; the machine's own unless set."""
    interval: Seconds = 5.0
    """How often a name is asked for again."""


class BlobSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where large inputs and results lie."""

    url: str | None = None
    """A folder (`file:///path`) or `s3://bucket/prefix?endpoint=...`; `blobs` in the data folder unless set."""
    limit: Bytes = 5_368_709_120
    """Largest blob."""


class HttpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outgoing HTTP of one process."""

    connections: Positive = 50
    """Most sockets to services at the same time, streams besides."""
    connections_per_host: Positive = 20
    """Most of them to one host; a request more waits."""


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logs go to stderr."""

    level: Annotated[
        str, Meta(pattern="^(debug|info|warning|error)\\Z", description="debug, info, warning or error")
    ] = "info"
    """From which importance on something is logged: debug, info, warning or error."""
    format: Annotated[str, Meta(pattern="^(text|json)\\Z", description="text or json")] = "text"
    """Lines for people (text) or for programs (json)."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    blobs: BlobSettings = field(default_factory=BlobSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    discovery: DiscoverySettings = field(default_factory=DiscoverySettings)
    log: LogSettings = field(default_factory=LogSettings)
    connectors: dict[str, ConnectorSettings] = {}
    """Services to drive, by a name of your own: what each may say is the table below."""
    queues: dict[str, Json] = {}
    """Rows of the queue registry by name (`contracts.queue.QueueSpec` without `name`)."""
    kinds: dict[str, Json] = {}
    """Kinds by name (`contracts.queue.KindSpec` without `name`)."""
    mapping: str | None = None
    """A `service-mapping.json` of the prior broker to import."""
    workers: str | None = None
    """The prior broker's `WORKERS=type:count,...` string."""
    worker_types: dict[str, tuple[str, ...]] = {}
    """Names for several entries of `connectors` at once, for use in a SPEC; an imported mapping fills it."""
    url: HttpUrl = "http://127.0.0.1:7700"
    """The gateway that user commands speak to (`HOSTLER_URL`)."""
    key: str | None = None
    """Credential for the gateway (`HOSTLER_KEY`); never printed."""
