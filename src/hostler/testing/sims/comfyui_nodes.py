"""The node classes that the simulated ComfyUI knows: what `/object_info` says of them, and what they make."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from hostler.testing.sims.work import preview

INT_MAX: Final = 2**64 - 1
LINK: Final = 2
"""Parts of a link: node id, output number."""
_SIDE: Final = {"default": 512, "min": 16, "max": 16384, "step": 8}
_UPSCALERS: Final = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]


@dataclass(frozen=True, kw_only=True)
class NodeClass:
    """One node class; input rows are as ComfyUI writes them: `[type or choices, options]`."""

    category: str
    required: dict[str, list[Any]]
    outputs: tuple[str, ...] = ()
    output_node: bool = False
    samples: bool = False
    """It works in steps, says its progress and shows previews."""
    module: str = "nodes"
    hidden: dict[str, str] = field(default_factory=dict[str, str])

    def info(self, name: str) -> dict[str, Any]:
        """Return what `/object_info` says of it."""
        return {
            "input": {"required": self.required, **({"hidden": self.hidden} if self.hidden else {})},
            "input_order": {"required": list(self.required), **({"hidden": list(self.hidden)} if self.hidden else {})},
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.outputs),
            "name": name,
            "display_name": name,
            "description": "",
            "python_module": self.module,
            "category": self.category,
            "output_node": self.output_node,
        }


_SAVED: Final = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
_FIXED: Final = {
    "CLIPTextEncode": NodeClass(
        category="conditioning",
        required={"text": ["STRING", {"multiline": True}], "clip": ["CLIP", {}]},
        outputs=("CONDITIONING",),
    ),
    "EmptyLatentImage": NodeClass(
        category="latent",
        required={
            "width": ["INT", _SIDE],
            "height": ["INT", _SIDE],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 64}],
        },
        outputs=("LATENT",),
    ),
    "KSampler": NodeClass(
        category="sampling",
        required={
            "model": ["MODEL", {}],
            "seed": ["INT", {"default": 0, "min": 0, "max": INT_MAX}],
            "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
            "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}],
            "sampler_name": [["euler", "dpmpp_2m", "ddim"], {}],
            "scheduler": [["normal", "karras", "simple"], {}],
            "positive": ["CONDITIONING", {}],
            "negative": ["CONDITIONING", {}],
            "latent_image": ["LATENT", {}],
            "denoise": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0}],
        },
        outputs=("LATENT",),
        samples=True,
    ),
    "VAEDecode": NodeClass(
        category="latent", required={"samples": ["LATENT", {}], "vae": ["VAE", {}]}, outputs=("IMAGE",)
    ),
    "SaveImage": NodeClass(
        category="image",
        required={"images": ["IMAGE", {}], "filename_prefix": ["STRING", {"default": "ComfyUI"}]},
        output_node=True,
        hidden=_SAVED,
    ),
    "PreviewImage": NodeClass(category="image", required={"images": ["IMAGE", {}]}, output_node=True, hidden=_SAVED),
    "EmptyImage": NodeClass(
        category="image",
        required={
            "width": ["INT", {"default": 512, "min": 1, "max": 16384}],
            "height": ["INT", {"default": 512, "min": 1, "max": 16384}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
            "color": ["INT", {"default": 0, "min": 0, "max": 0xFFFFFF}],
        },
        outputs=("IMAGE",),
        module="comfy_extras.nodes_images",
    ),
    "ImageInvert": NodeClass(category="image", required={"image": ["IMAGE", {}]}, outputs=("IMAGE",)),
    "ImageScale": NodeClass(
        category="image/upscaling",
        required={
            "image": ["IMAGE", {}],
            "upscale_method": [_UPSCALERS, {}],
            "width": ["INT", {"default": 512, "min": 0, "max": 16384}],
            "height": ["INT", {"default": 512, "min": 0, "max": 16384}],
            "crop": [["disabled", "center"], {}],
        },
        outputs=("IMAGE",),
    ),
    "PreviewAny": NodeClass(
        category="utils",
        required={"source": ["*", {}]},
        outputs=("STRING",),
        output_node=True,
        module="comfy_extras.nodes_preview_any",
    ),
    "HostlerLantern": NodeClass(
        category="lighthouse",
        required={"image": ["IMAGE", {}], "glow": ["FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0}]},
        outputs=("IMAGE",),
        module="custom_nodes.lighthouse-pack",
    ),
}
"""Classes that are the same whatever the server has."""


def node_classes(models: tuple[str, ...], pictures: tuple[str, ...]) -> dict[str, NodeClass]:
    """Return the node classes of a server that has these checkpoints and these pictures in its input folder."""
    return {
        "CheckpointLoaderSimple": NodeClass(
            category="loaders", required={"ckpt_name": [list(models), {}]}, outputs=("MODEL", "CLIP", "VAE")
        ),
        "LoadImage": NodeClass(
            category="image",
            required={"image": [sorted(pictures), {"image_upload": True}]},
            outputs=("IMAGE", "MASK"),
        ),
        **_FIXED,
    }


def picture(signature: str, *, size: int = 0) -> bytes:
    """Return the PNG of a node's output: it follows from what made it; at least `size` bytes (trailing padding)."""
    data = preview(int(signature[:8], 16), signature)
    return data + b"\0" * max(0, size - len(data))


def signatures(prompt: Mapping[str, Any], files: Mapping[tuple[str, str, str], bytes]) -> dict[str, str]:
    """Return for each node a digest of everything that its output follows from, files it loads included."""
    found: dict[str, str] = {}

    def sign(node_id: str, path: tuple[str, ...] = ()) -> str:
        if node_id in path or node_id not in prompt:
            return "0" * 64
        if node_id not in found:
            node = prompt[node_id]
            digest = hashlib.sha256(str(node["class_type"]).encode())
            for name, value in sorted(node.get("inputs", {}).items()):
                linked = is_link(value)
                part = (sign(str(value[0]), (*path, node_id)), value[1]) if linked else value
                digest.update(repr((name, part)).encode())
                if node["class_type"] == "LoadImage" and isinstance(value, str):
                    digest.update(files.get(("input", *split_name(value)), b""))
            found[node_id] = digest.hexdigest()
        return found[node_id]

    for node_id in prompt:
        sign(node_id)
    return found


def is_link(value: Any) -> bool:
    """Tell whether an input is the output of another node: `[node id, output number]`."""
    return isinstance(value, list) and len(cast("list[Any]", value)) == LINK and isinstance(value[0], str)


def split_name(name: str) -> tuple[str, str]:
    """Return subfolder and file name of what an input calls `sub/folder/name.png`."""
    folder, _, file = name.rpartition("/")
    return folder, file
