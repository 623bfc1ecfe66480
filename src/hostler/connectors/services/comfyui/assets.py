"""What a ComfyUI server has, from what it says of its node classes and its machine."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from hostler.connectors.services.comfyui.judge import MODEL_ENDINGS
from hostler.connectors.services.comfyui.messages import NodeInfo, StatsAnswer

MODELS_MAX: Final = 5_000
PACKS_MAX: Final = 200
LABEL_MAX: Final = 128
_RELEASE: Final = re.compile(r"v?(\d+(?:\.\d+)*)")
_CUSTOM: Final = "custom_nodes."


def models_of(nodes: Mapping[str, NodeInfo]) -> tuple[str, ...]:
    """Return every model file that some node offers as a choice."""
    found = {
        choice
        for info in nodes.values()
        for rows in info.input.values()
        for row in (rows or {}).values()
        for choice in _choices(row)
        if choice.endswith(MODEL_ENDINGS) and len(choice) <= LABEL_MAX
    }
    return tuple(sorted(found)[:MODELS_MAX])


def _choices(row: Any) -> Iterator[str]:
    """Yield the choices of an input: a list in the place of its type, or options of the type COMBO."""
    parts = cast("list[Any]", row) if isinstance(row, list) else []
    found: Any = parts[0] if parts else None
    if found == "COMBO" and len(parts) > 1 and isinstance(parts[1], dict):
        found = cast("dict[str, Any]", parts[1]).get("options")
    if isinstance(found, list):
        yield from (choice for choice in cast("list[Any]", found) if isinstance(choice, str))


def labels_of(nodes: Mapping[str, NodeInfo], stats: StatsAnswer) -> dict[str, str]:
    """Return the GPU's name, and `nodes.<pack>` for each pack of custom nodes that is installed."""
    packs = {
        info.python_module.removeprefix(_CUSTOM).split(".", maxsplit=1)[0]
        for info in nodes.values()
        if info.python_module.startswith(_CUSTOM)
    }
    labels = {f"nodes.{pack}"[:LABEL_MAX]: "installed" for pack in sorted(packs)[:PACKS_MAX]}
    name = next((device.name for device in stats.devices if device.name), "")
    return {**labels, "gpu": name[:LABEL_MAX]} if name else labels


def versions_of(stats: StatsAnswer) -> dict[str, str]:
    """Return the versions that are versions: a server that was cloned says `v0.2.3-12-gabcdef`."""
    said = {"comfyui": stats.system.comfyui_version, "pytorch": stats.system.pytorch_version}
    found = {name: _RELEASE.match(text) for name, text in said.items() if text}
    return {name: match[1] for name, match in found.items() if match}
