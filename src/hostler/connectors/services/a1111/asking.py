"""From a payload to the request that a server with the API of A1111 is sent."""

from functools import partial
from typing import Final

import msgspec
from msgspec import Raw, Struct

from hostler.connectors.faults import fault
from hostler.connectors.schemas import open_payload
from hostler.connectors.services.a1111.judge import images_of, upscaled
from hostler.connectors.services.a1111.messages import Img2imgPayload, ModelRow, Picture, Txt2imgPayload, UpscalePayload
from hostler.connectors.services.a1111.run import Asked
from hostler.contracts.failure import FailureClass
from hostler.contracts.service import ServiceCall
from hostler.kernel.units import Json

TXT2IMG: Final = "a1111.txt2img"
IMG2IMG: Final = "a1111.img2img"
UPSCALE: Final = "a1111.upscale"
EARLIER: Final = 8
"""Earlier attempts whose work is looked for in a server that is busy."""


class Judged(Struct, frozen=True, kw_only=True):
    """What a payload needs before its request can be made."""

    model: str | None = None
    pictures: dict[str, Picture | tuple[Picture, ...] | None] = {}
    """By field of the request."""


def judged(call: ServiceCall, default: str | None) -> Judged:
    """Judge the payload; raises the fault `invalid_input`. `default` is the checkpoint where it names none."""
    match call.kind:
        case "a1111.txt2img":
            return Judged(model=open_payload(call.payload, Txt2imgPayload).model or default)
        case "a1111.img2img":
            asked = open_payload(call.payload, Img2imgPayload)
            _no_address(*asked.init_images, *filter(None, (asked.mask,)))
            pictures: dict[str, Picture | tuple[Picture, ...] | None] = {"init_images": asked.init_images}
            return Judged(model=asked.model or default, pictures=pictures | {"mask": asked.mask})
        case "a1111.upscale":
            image = open_payload(call.payload, UpscalePayload).image
            _no_address(image)
            return Judged(pictures={"image": image})
        case _:
            raise fault(FailureClass.INVALID_INPUT, f"a1111-http has no kind {call.kind}")


def asked_of(call: ServiceCall, model: ModelRow | None, pictures: dict[str, Json]) -> Asked:
    """Return the request of a payload that was judged: as it came, but for what the connector decides."""
    fields: dict[str, Raw | Json] = {**msgspec.json.decode(call.payload, type=dict[str, Raw]), **pictures}
    task = f"{call.job_id}/{call.fence}"
    earlier = tuple(f"{call.job_id}/{fence}" for fence in range(call.fence - 1, 0, -1)[:EARLIER])
    if call.kind == UPSCALE:
        fields.setdefault("upscaling_resize", 2.0)
        fields.setdefault("upscaler_1", "Lanczos")
        return Asked(
            path="/sdapi/v1/extra-single-image",
            body=msgspec.json.encode(fields),
            task=task,
            job="extras",
            named=False,
            earlier=(),
            judge=upscaled,
        )
    asked = open_payload(call.payload, Txt2imgPayload)
    fields |= {"force_task_id": task, "send_images": True}
    fields.pop("model", None)
    if model is not None:
        # What is loaded for a job stays loaded: to go back after each one would load twice for the next alike.
        fields["override_settings"] = {**asked.override_settings, "sd_model_checkpoint": model.title}
        fields.setdefault("override_settings_restore_afterwards", False)
    mode = call.kind.rpartition(".")[2]
    count = 1 if asked.script_name else asked.batch_size * asked.n_iter
    return Asked(
        path=f"/sdapi/v1/{mode}",
        body=msgspec.json.encode(fields),
        task=task,
        job=f"scripts_{mode}",
        named=True,
        earlier=earlier,
        judge=partial(images_of, count=count, model=model),
    )


def _no_address(*pictures: Picture) -> None:
    """Refuse addresses: the server would fetch them, from wherever it stands."""
    if any(isinstance(picture, str) and "://" in picture[:16] for picture in pictures):
        raise fault(FailureClass.INVALID_INPUT, "a picture is given in base64, not as an address to fetch it from")
