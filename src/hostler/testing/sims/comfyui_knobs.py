"""How the simulated ComfyUI behaves."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from hostler.kernel.units import Bytes, Fraction, Seconds
from hostler.testing.sims.knobs import Fate, SimKnobs

COMFYUI_FAILURES: Final = ("internal_error", "out_of_memory")
"""Codes that a run may fail with: a node that raises, and a GPU that is too small."""

Dialect = Literal["new", "old"]


class ComfyuiKnobs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All knobs; each rate is the share of prompts (or requests) that it strikes.

    What strikes a prompt follows from the seed and the prompt's id alone, so one seed gives one story.
    """

    dialect: Dialect = "new"
    """`old` is a server of 2024: it gives prompts ids of its own, interrupts whatever runs, has no `/api/jobs`,
    no `execution_success`, no `progress_state`, and tells no one its features."""
    duration: Seconds = 1.0
    """How long `steps` steps of a sampler take; a sampler takes as many steps as its prompt says."""
    steps: Annotated[int, Meta(ge=1, le=10_000)] = 10
    load: Seconds = 0.0
    """How long a checkpoint takes to load that the run before did not use."""
    failures: dict[str, Fraction] = field(default_factory=dict[str, float])
    """Share of prompts whose sampler raises, by code of `COMFYUI_FAILURES`."""
    hang_rate: Fraction = 0.0
    """Prompts whose sampler stops moving half-way and never ends unless interrupted."""
    missed_rate: Fraction = 0.0
    """Prompts that end well while their socket falls silent: only the history tells."""
    drop_rate: Fraction = 0.0
    """Prompts whose socket is cut at a message, once; the prompt goes on."""
    cut_at: Annotated[int, Meta(ge=0)] | None = None
    """Cut each prompt's socket in place of its message of this number, counted from 0, once."""
    swallow_rate: Fraction = 0.0
    """Prompts that are queued while the answer that says so is cut."""
    socket: bool = True
    """Whether there is a socket; some proxies carry none."""
    burst_rate: Fraction = 0.0
    """Requests that begin a burst of server errors, as a proxy before ComfyUI gives them."""
    burst_length: Annotated[int, Meta(ge=1, le=10_000)] = 5
    health_failure_rate: Fraction = 0.0
    """Answers of `/system_stats` and `GET /prompt` that are 503; work is not touched."""
    previews: bool = True
    """Send a preview with every step, as `--preview-method auto` does."""
    preview_bytes: Bytes = 0
    """Previews are at least this large (padded)."""
    image_bytes: Bytes = 0
    """Pictures are at least this large (padded)."""
    vram: Bytes = 25_757_220_864
    models: tuple[str, ...] = ("sim-small.safetensors", "sim-large.safetensors")
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.failures) - set(COMFYUI_FAILURES))
        if unknown:
            raise ValueError(f"unknown failure codes {', '.join(unknown)}; there are {', '.join(COMFYUI_FAILURES)}")
        if sum(self.failures.values()) > 1:
            raise ValueError("the failure rates add up to more than 1")

    def fate(self, prompt_id: str, run: int) -> Fate:
        """Draw what the n-th run of a prompt is going to meet."""
        dice = SimKnobs(
            failures=self.failures,
            hang_rate=self.hang_rate,
            missed_rate=self.missed_rate,
            drop_rate=self.drop_rate,
            seed=self.seed,
        )
        fate = Fate.draw(dice, prompt_id, run, self.steps)
        if self.cut_at is None:
            return fate
        return Fate(failure=fate.failure, hangs=fate.hangs, missed=fate.missed, drop_at=self.cut_at)
