"""What goes to and comes from a model that Cog serves."""

from msgspec import Raw, Struct, field

from hostler.contracts.job import null_json
from hostler.kernel.units import Json


class CogPayload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of `cog.predict`; what `input` takes is said by the model itself, in its OpenAPI schema."""

    input: dict[str, Json]


class CogResult(Struct, frozen=True, kw_only=True):
    """Result of `cog.predict`."""

    output: Json
    """As the model gave it; files come as `data:` URLs, unless the server stores them elsewhere."""
    logs: str = ""
    """The last 64 KiB of what the model wrote."""
    metrics: dict[str, Json] = {}


class PredictionView(Struct, frozen=True, kw_only=True):
    """How a prediction ended; a failure comes with status 200 too."""

    status: str
    id: str | None = None
    output: Raw = field(default_factory=null_json)
    error: str | None = None
    logs: str | None = None
    metrics: dict[str, Json] | None = None


class OutputChunk(Struct, frozen=True, kw_only=True):
    """Event `output`."""

    chunk: Json
    index: int = 0


class LogLine(Struct, frozen=True, kw_only=True):
    """Event `log`."""

    data: str


class SetupView(Struct, frozen=True, kw_only=True):
    """How the model's setup went."""

    status: str | None = None
    logs: str | None = None


class VersionView(Struct, frozen=True, kw_only=True):
    """Which parts serve the model."""

    coglet: str | None = None
    python_sdk: str | None = None
    cog: str | None = None


class HealthView(Struct, frozen=True, kw_only=True):
    """Answer of `/health-check`, with status 200 whatever it says."""

    status: str
    setup: SetupView | None = None
    version: VersionView | str | None = None

    @property
    def server_version(self) -> str | None:
        """The version of the server."""
        if isinstance(self.version, VersionView):
            return self.version.coglet or self.version.cog or self.version.python_sdk
        return self.version

    @property
    def last_words(self) -> str:
        """The last line that the setup wrote."""
        logs = "" if self.setup is None else (self.setup.logs or "")
        return logs.strip().rpartition("\n")[2][:400]


class InputSchema(Struct, frozen=True, kw_only=True):
    """The names that a model takes."""

    properties: dict[str, Json] = {}
    additional: bool = field(default=False, name="additionalProperties")


class OutputSchema(Struct, frozen=True, kw_only=True):
    """What a model gives."""

    type: str | None = None
    display: str | None = field(default=None, name="x-cog-array-display")

    @property
    def text(self) -> bool:
        """Tell whether the chunks of its output are pieces of one text."""
        return self.display == "concatenate"


class Schemas(Struct, frozen=True, kw_only=True):
    """The schemas of a model."""

    input: InputSchema | None = field(default=None, name="Input")
    output: OutputSchema | None = field(default=None, name="Output")


class Components(Struct, frozen=True, kw_only=True):
    """Part of an OpenAPI document."""

    schemas: Schemas = Schemas()


class OpenApi(Struct, frozen=True, kw_only=True):
    """Answer of `/openapi.json`."""

    components: Components = Components()
