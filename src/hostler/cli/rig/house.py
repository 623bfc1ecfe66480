"""What a rig's processes are told: the settings file of all, and the words of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hostler.chaos.load import IMAGES, METERED, QUEUE
from hostler.cli.rig.secrets import KEY_VARIABLE

PRESS: Final = "press"
"""The entry whose calls are limited: the first service, by a way of its own."""
PRESS_LIMIT: Final = "4/2s burst 2 per service"


def write_settings(path: Path, ports: Mapping[str, int], *, depth: int | None, level: str) -> None:
    """Write the settings of all processes; `ports` are where each entry is to be called, `depth` that of queues."""
    blobs = path.parent / "blobs"
    blobs.mkdir(exist_ok=True)
    lines = ["[log]", f'level = "{level}"', 'format = "json"', "[blobs]", f'url = "{blobs.as_uri()}"']
    for queue in (QUEUE, IMAGES) if depth is not None else ():
        lines += [f"[queues.{queue}.limits]", f"depth = {depth}"]
    for name, port in ports.items():
        url = f"http://127.0.0.1:{port}"
        lines += [f"[connectors.{name}]", 'connector = "simulation-http"', f'url = "{url}"']
        lines += [f'api_key_env = "{KEY_VARIABLE}"']
        if name == PRESS:
            labels = ", ".join(f'{label} = "{value}"' for label, value in METERED.items())
            lines += [f"labels = {{ {labels} }}", f'limits = ["{PRESS_LIMIT}"]']
    path.write_text("\n".join(lines) + "\n")
