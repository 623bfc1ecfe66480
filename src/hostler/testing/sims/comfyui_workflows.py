"""Workflows that the simulated ComfyUI can run, in the API format: for tests, demonstrations and documents."""

from typing import Any

from hostler.testing.sims.comfyui_knobs import ComfyuiKnobs

MODEL = ComfyuiKnobs().models[0]


def text_to_image(
    prompt: str = "a lighthouse", *, seed: int = 7, steps: int = 10, model: str = MODEL, prefix: str = "hostler"
) -> dict[str, Any]:
    """Return the workflow that ComfyUI opens with: checkpoint, two texts, sampler, decoder, file."""
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "fog", "clip": ["4", 1]}},
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": seed,
                "steps": steps,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": prefix}},
    }


def invert(image: Any, *, prefix: str = "inverted") -> dict[str, Any]:
    """Return a workflow without a model: it loads a picture (a name, or a reference), inverts and saves it."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": prefix}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
