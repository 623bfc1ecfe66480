"""What a job asks of whoever runs it."""

from typing import Annotated

from msgspec import Meta, Struct, field

from hostler.kernel.units import Label, Name

Amount = Annotated[float, Meta(gt=0)]
"""How much of something a running job takes away from whoever has it (slots, bytes of GPU memory, tokens)."""


class Needs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a worker must offer; every part given must hold."""

    service: Name | None = None
    """Name of the AI service (`simulation`, `openai`)."""
    models: Annotated[tuple[Label, ...], Meta(max_length=16)] = ()
    """Every model named must be available."""
    labels: Annotated[dict[Label, Label], Meta(max_length=16)] = {}
    """Each label must be offered with exactly this value."""
    versions: Annotated[dict[Label, Label], Meta(max_length=16)] = {}
    """Version specifiers by component (`{"comfyui": ">=0.3"}`), PEP 440 notation."""
    isolation: Name | None = None
    """Isolation level that the worker must give (`process`, `container`)."""
    amounts: Annotated[dict[Name, Amount], Meta(max_length=8)] = {}
    """Amounts taken while the job runs; `slots` is 1 unless set."""


class Avoid(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a worker must not offer; any part that holds excludes it."""

    service: Name | None = None
    models: Annotated[tuple[Label, ...], Meta(max_length=16)] = ()
    labels: Annotated[dict[Label, Label], Meta(max_length=16)] = {}
    versions: Annotated[dict[Label, Label], Meta(max_length=16)] = {}
    isolation: Name | None = None
    workers: Annotated[tuple[str, ...], Meta(max_length=8)] = ()
    """Ids of workers that must not run it (kept by the broker after a mismatch); 8 at most."""
    shunned: Annotated[tuple[str, ...], Meta(max_length=8)] = ()
    """Ids of workers that should not run it while another fit worker lives (after a failure there)."""


class Lane(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Jobs of one queue with the same kind, needs and avoid: matching is decided once per lane."""

    kind: Name
    needs: Needs = field(default_factory=Needs)
    avoid: Avoid = field(default_factory=Avoid)
