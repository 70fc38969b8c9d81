"""A vision transformer (SigLIP, CLIP, DINO) from a local folder; needs the `clip` extra. Nothing is downloaded.

CARFORGE_CLIP names the folder, in Hugging Face's layout (config.json, model.safetensors, preprocessor_config.json).
"""

import hashlib
import importlib
import json
import math
import os
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError, reason_of
from harness.files import open_file
from harness.networks.layers import Normalise

REMEDY = "CARFORGE_CLIP: name the folder of a vision transformer (config.json, model.safetensors)"
CELLS = 4  # a side


class VisionTransformer(nn.Module):
    """x float32 (B, 3, size_px, size_px) in [-1, 1] → mean of the patches (B, D), means in 4 x 4 cells (B, 16 D)."""

    def __init__(self, trunk: nn.Module, size_px: int, width: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.trunk, self.size_px, self.width = trunk, size_px, width
        self.scale = Normalise(mean, std)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.trunk(pixel_values=self.scale(x)).last_hidden_state
        side = math.isqrt(tokens.shape[1])  # class and register tokens come first
        patches = tokens[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))
        return patches.mean((2, 3)), F.adaptive_avg_pool2d(patches, CELLS).flatten(1)


def find_folder() -> Path | None:
    """The folder that CARFORGE_CLIP names, if there is one."""
    given = os.environ.get("CARFORGE_CLIP")
    folder = Path(given).expanduser() if given else None
    return folder if folder and (folder / "config.json").is_file() else None


def load_network() -> tuple[VisionTransformer, str]:
    """The network, and a sha256 of its files. UserError when folder or package are missing or unsuitable."""
    folder = find_folder()
    if folder is None:
        raise UserError(f"{REMEDY}; found {os.environ.get('CARFORGE_CLIP') or 'nothing'}")
    try:
        transformers: Any = importlib.import_module("transformers")
    except (ImportError, RuntimeError) as error:
        raise UserError(f"features clip: transformers cannot be imported ({error}); install carforge[clip]") from error
    try:
        model = transformers.AutoModel.from_pretrained(str(folder), local_files_only=True)
        trunk = getattr(model, "vision_model", model).float().eval().requires_grad_(False)
        config = getattr(model.config, "vision_config", model.config)
        preprocessor = folder / "preprocessor_config.json"
        settings = json.loads(preprocessor.read_text()) if preprocessor.is_file() else {}
        mean, std = (settings.get(key) or [0.5] * 3 for key in ("image_mean", "image_std"))
        network = VisionTransformer(trunk, int(config.image_size), int(config.hidden_size), mean, std)
    except Exception as error:  # transformers raises nearly anything
        raise UserError(f"{folder}: cannot be read as a vision transformer ({reason_of(error)}); {REMEDY}") from error
    return network.eval(), _sha256(folder)


def _sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".json", ".safetensors", ".bin"):
            with open_file(path) as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
