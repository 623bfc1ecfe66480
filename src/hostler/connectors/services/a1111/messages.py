"""What goes to and comes from a server with the API of A1111."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from hostler.contracts.job import BlobRef
from hostler.contracts.reference import BlobPayload
from hostler.kernel.units import Json, Seconds

Pixels = Annotated[int, Meta(ge=8, le=16_384)]
Count = Annotated[int, Meta(ge=1, le=100)]
Picture = Annotated[str, Meta(min_length=1)] | BlobPayload
"""A picture in base64 (with or without `data:image/...;base64,` before it) or `{"$blob": {...}}`; never an address."""


class Txt2imgPayload(Struct, frozen=True, kw_only=True):
    """Payload of `a1111.txt2img`; any other field of the API passes through as it is."""

    prompt: Annotated[str, Meta(max_length=100_000)]
    negative_prompt: Annotated[str, Meta(max_length=100_000)] = ""
    model: str | None = None
    """Checkpoint: its name, title, hash or file; the connector's option `model`, else what is loaded, unless set."""
    width: Pixels = 512
    height: Pixels = 512
    steps: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    """The server's own number unless set."""
    seed: int = -1
    """-1 lets the server choose; the result says which it was."""
    cfg_scale: Annotated[float, Meta(ge=0, le=1_000)] | None = None
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: Count = 1
    n_iter: Count = 1
    """Batches, one after the other."""
    script_name: str | None = None
    override_settings: dict[str, Json] = {}


class Img2imgPayload(Txt2imgPayload, frozen=True, kw_only=True):
    """Payload of `a1111.img2img`; any other field of the API passes through as it is."""

    init_images: Annotated[tuple[Picture, ...], Meta(min_length=1, max_length=64)]
    mask: Picture | None = None
    denoising_strength: Annotated[float, Meta(ge=0, le=1)] = 0.75


class UpscalePayload(Struct, frozen=True, kw_only=True):
    """Payload of `a1111.upscale`; any other field of `extra-single-image` passes through as it is."""

    image: Picture
    upscaling_resize: Annotated[float, Meta(gt=0, le=16)] = 2.0
    upscaler_1: str = "Lanczos"


class MadeImage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One picture that was made."""

    blob: BlobRef | None = None
    """Where it lies; None when there is no blob store."""
    data: bytes | None = None
    """The file itself (base64 in JSON) when there is no blob store."""
    media_type: Literal["image/png", "image/jpeg", "image/webp"]
    seed: int | None = None
    infotext: str | None = None
    """How it was made, as the web UI writes it."""


class ImagesResult(Struct, frozen=True, kw_only=True):
    """Result of `a1111.txt2img` and `a1111.img2img`."""

    images: tuple[MadeImage, ...]
    """In order; what scripts add (maps, plots) comes last."""
    grid: MadeImage | None = None
    model: str | None = None
    """The checkpoint that made them, as the server says."""


class UpscaleResult(Struct, frozen=True, kw_only=True):
    """Result of `a1111.upscale`."""

    image: MadeImage


class ImagesAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `txt2img` and `img2img`."""

    images: tuple[str, ...]
    info: str


class UpscaleAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `extra-single-image`."""

    image: str


class InfoView(Struct, frozen=True, kw_only=True):
    """What the JSON in the field `info` says."""

    all_seeds: tuple[int, ...] = ()
    infotexts: tuple[str, ...] = ()
    index_of_first_image: Annotated[int, Meta(ge=0)] = 0
    sd_model_name: str | None = None
    sd_model_hash: str | None = None


class TaskView(Struct, frozen=True, kw_only=True):
    """Answer of `/internal/progress`: how one task is."""

    active: bool
    queued: bool
    completed: bool = False
    progress: float | None = None
    eta: float | None = None
    textinfo: str | None = None
    live_preview: str | None = None
    """The picture as a `data:` URL, when it was asked for and is another than the one named."""
    id_live_preview: int | None = None


class StateView(Struct, frozen=True, kw_only=True):
    """The one state that the server has, whoever's work it is."""

    job: str = ""
    job_count: int = 0
    """0 when idle, -1 while it prepares (loads a model)."""
    job_no: int = 0
    job_timestamp: str = ""
    sampling_step: int = 0
    sampling_steps: int = 0
    interrupted: bool = False
    skipped: bool = False
    stopping_generation: bool = False

    @property
    def cut_short(self) -> bool:
        """Tell whether somebody asked for less than the whole work."""
        return self.interrupted or self.skipped or self.stopping_generation


class ProgressView(Struct, frozen=True, kw_only=True):
    """Answer of `/sdapi/v1/progress`."""

    state: StateView
    progress: float = 0.0
    eta_relative: float | None = None

    def back_in(self, *, least: Seconds, most: Seconds) -> Seconds:
        """Return when to come back to a server that is busy."""
        return min(max(self.eta_relative or 0.0, least), most)


class PendingView(Struct, frozen=True, kw_only=True):
    """Answer of `/internal/pending-tasks`."""

    size: int


class ModelRow(Struct, frozen=True, kw_only=True):
    """One checkpoint."""

    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """All names by which the server takes it."""
        file = None if self.filename is None else self.filename.replace("\\", "/").rpartition("/")[2]
        return frozenset(filter(None, (self.title, self.model_name, self.hash, self.sha256, file)))

    def answers_to(self, name: str) -> bool:
        """Tell whether this is what `name` means."""
        return name in self.names


class NamedRow(Struct, frozen=True, kw_only=True):
    """One sampler or upscaler."""

    name: str


class OptionsView(Struct, frozen=True, kw_only=True):
    """What is of interest in `/sdapi/v1/options`."""

    sd_model_checkpoint: str | None = None


class AmountView(Struct, frozen=True, kw_only=True):
    """Bytes."""

    total: float
    free: float | None = None


class CudaView(Struct, frozen=True, kw_only=True):
    """The GPU's memory, or why there is none."""

    system: AmountView | None = None
    error: str | None = None


class MemoryView(Struct, frozen=True, kw_only=True):
    """Answer of `/sdapi/v1/memory`."""

    cuda: CudaView = CudaView()


class ErrorView(Struct, frozen=True, kw_only=True):
    """A body that says why not: A1111's (`error`, `detail`, `errors`) or Forge's (`detail`; `error`, `message`)."""

    error: str = ""
    """Name of the exception."""
    detail: str | list[Json] | dict[str, Json] | None = None
    errors: str = ""
    message: str = ""
