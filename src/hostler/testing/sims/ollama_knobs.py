"""How a simulated Ollama behaves."""

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct, field

from hostler.kernel.units import Bytes, Fraction, Seconds
from hostler.testing.sims.knobs import chance

Trouble = Literal[
    "server_error", "server_busy", "out_of_memory", "error_line", "cut", "unended", "garbage", "html", "hang"
]
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)
"""What a request may meet: a status (500, 503, 500 with Ollama's words for memory), a page of HTML; and in mid-answer
an error under status 200, a connection that is cut, an end without `done`, a line that is not JSON, or silence."""


class OllamaKnobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All knobs; each rate is the share of requests that it strikes, which follows from the seed and their number."""

    models: tuple[str, ...] = ("sim-chat:latest", "sim-large:latest")
    embedders: tuple[str, ...] = ("sim-embed:latest",)
    """Models that embed and do nothing else."""
    library: tuple[str, ...] = ("sim-extra:latest",)
    """Models that can be pulled."""
    size: Bytes = 400_000_000
    """Of each model."""
    gpu_memory: Bytes = 1_000_000_000
    """Models are loaded side by side while they fit; then those that nobody uses are unloaded."""
    load: Seconds = 0.5
    """How long it takes to load a model."""
    first_token: Seconds = 0.02
    token: Seconds = 0.01
    """Between two tokens."""
    tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 32
    """Of an answer; `num_predict` cuts it short."""
    pull: Seconds = 1.0
    """How long a pull takes."""
    parallel: Annotated[int, Meta(ge=1, le=1_000)] = 1
    """Requests that a model answers at a time, `OLLAMA_NUM_PARALLEL`."""
    backlog: Annotated[int, Meta(ge=0, le=100_000)] = 512
    """Requests that may wait, `OLLAMA_MAX_QUEUE`; one more is answered 503."""
    keep_alive: Seconds = 300.0
    """How long a model stays loaded after its last request, unless that says."""
    failures: dict[Trouble, Fraction] = field(default_factory=dict[Trouble, float])
    """Share of requests that meet each trouble."""
    health_failure_rate: Fraction = 0.0
    """Requests for the version that are answered 500; work is not touched."""
    retry_after: Seconds | None = None
    """What a 503 says, as a proxy would: Ollama itself says nothing."""
    seed: int = 0

    def __post_init__(self) -> None:
        if sum(self.failures.values()) > 1:
            raise ValueError("the failure rates add up to more than 1")

    def trouble(self, number: int) -> Trouble | None:
        """Return what the n-th request is going to meet."""
        roll = chance(self.seed, number, "trouble")
        for code in TROUBLES:
            roll -= self.failures.get(code, 0.0)
            if roll < 0:
                return code
        return None
