"""Features of pictures for every stage that needs them: cleaning, measures of a design, metrics, brands.

In: uint8 (N, H, W, 3) of any size. Out: float32 (N, d), and what the factor reader sees in a picture.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError

READER_PATH = Path(__file__).parent / "weights" / "reader.safetensors"
READER_SCHEMA = 1
FEATURIZERS = ("reader", "inception")
REMEDY = "put the repository's file back, or train one with `python -m datasets reader`"


def pictures_to_input(pictures: np.ndarray, size_px: int) -> Tensor:
    """uint8 (N, H, W, 3) → float32 (N, 3, size_px, size_px) in [-1, 1].

    A picture that is not square is continued on both sides with its edge rows or columns until it is: the car keeps its
    proportions, as if the picture had been drawn square. The resize is bilinear over all source pixels.
    """
    assert pictures.dtype == np.uint8 and pictures.ndim == 4 and pictures.shape[3] == 3, pictures.shape
    x = torch.tensor(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    height, width = x.shape[2:]
    if height != width:
        rows, columns = max(width - height, 0), max(height - width, 0)
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), mode="replicate")
    if x.shape[2] != size_px:
        x = F.interpolate(x, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)
    return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Featurizer:
    """Pictures → features. Equal `sha256` means equal features, so they may be kept under it.

    Attributes:
        size_px: side of the square that `network` takes.
        sha256: of the weights file.
        network: float32 (B, 3, size_px, size_px) in [-1, 1] → (B, dim), both on the CPU.
        resizer: what `to_input` does; another one gives other features.
        to_input: uint8 (B, H, W, 3), size_px → what `network` takes.
        head: features float32 (N, dim) → logits (N, classes); None for one that knows no classes.
    """

    name: str
    size_px: int
    sha256: str
    dim: int
    network: Callable[[Tensor], Tensor]
    resizer: str = "squared bilinear antialiased"
    to_input: Callable[[np.ndarray, int], Tensor] = pictures_to_input
    head: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, pictures: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """uint8 (N, H, W, 3) → float32 (N, dim)."""
        parts = [self.network(x).numpy() for x in _batches(pictures, self.size_px, batch_size, self.to_input)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def logits(self, features: np.ndarray) -> np.ndarray | None:
        """Of features (N, dim), (N, classes); None where there are no classes."""
        return None if self.head is None else self.head(features)


def load_featurizer(name: str = "reader", device: str | torch.device = "cpu") -> Featurizer:
    """The featurizer of this name. UserError when there is none, or its weights are missing or damaged.

    `device` is where Inception is computed; the reader is small and stays on the CPU."""
    if name not in FEATURIZERS:
        raise UserError(f"featurizer: found {name!r}, allowed {', '.join(FEATURIZERS)}")
    if name == "inception":
        from harness.metrics.inception import load_inception  # which needs Featurizer from here

        return load_inception(device=device)
    return load_reader().featurizer


@torch.inference_mode()
def _batches(
    pictures: np.ndarray, size_px: int, batch_size: int, to_input: Callable[[np.ndarray, int], Tensor]
) -> Iterator[Tensor]:
    for start in range(0, len(pictures), batch_size):
        yield to_input(pictures[start : start + batch_size], size_px)


# ---- the factor reader ------------------------------------------------------------------------------------------


class ReaderNet(nn.Module):
    """Seven convolutions, an embedding, and linear heads that read it.

    The embedding keeps positions (3 x 3 cells), because lengths and the wheelbase are about where things are.
    """

    SIZE_PX = 48
    DIM = 128
    LAYERS = ((3, 24, 2), (24, 48, 2), (48, 64, 1), (64, 96, 2), (96, 96, 1), (96, 128, 2), (128, 64, 1))

    def __init__(self, outputs: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for inside, outside, stride in self.LAYERS:
            convolution = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
            parts += [convolution, nn.BatchNorm2d(outside), nn.ReLU()]
        cells = (self.SIZE_PX // 16) ** 2
        flat = [nn.Flatten(), nn.Linear(64 * cells, self.DIM, bias=False), nn.BatchNorm1d(self.DIM), nn.ReLU()]
        self.trunk = nn.Sequential(*parts, *flat)
        self.heads = nn.Linear(self.DIM, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (B, 3, 48, 48) in [-1, 1] → embedding (B, 128), outputs (B, len(output_names))."""
        embedding = self.trunk(x)
        return embedding, self.heads(embedding)


def output_names(factors: list[dict[str, Any]]) -> list[str]:
    """What the heads give, in order: a number a factor, two for one on a circle, the nose's side, the car logit."""
    names = []
    for factor in factors:
        names += [f"{factor['name']}.cos", f"{factor['name']}.sin"] if factor["circular"] else [factor["name"]]
    return [*names, "nose", "car"]


class Reader:
    """Reads the renderer's factors from a picture, and says whether it shows one usable car.

    A picture and its mirror image are both looked at and read alike; only `nose` tells them apart.

    Attributes:
        factors: one dict a factor: name, unit, low, high, mean, scale, circular.
        threshold: of `car_score`, from held-out renders.
        errors: factor → mean absolute error on held-out renders (hue: in turns, of coloured paint), in its unit.
        report: all held-out figures and the training recipe.
    """

    def __init__(self, network: ReaderNet, meta: dict[str, Any], sha256: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.meta, self.sha256 = meta, sha256
        self.factors: list[dict[str, Any]] = meta["factors"]
        self.threshold: float = meta["threshold"]
        self.errors: dict[str, float] = meta["errors"]
        self.report: dict[str, Any] = meta["report"]
        self.featurizer = Featurizer("reader", network.SIZE_PX, sha256, network.DIM, self._embed)

    def read(self, pictures: np.ndarray, batch_size: int = 128) -> dict[str, np.ndarray]:
        """uint8 (N, H, W, 3) → float32 (N,) each: all factors in their units and ranges, car_score in [0, 1],
        nose in [0, 1] (1 = points left)."""
        parts = [
            self._outputs(x).numpy() for x in _batches(pictures, self.network.SIZE_PX, batch_size, pictures_to_input)
        ]
        names = output_names(self.factors)
        columns = dict(zip(names, np.concatenate(parts).T, strict=True)) if parts else dict.fromkeys(names, np.zeros(0))
        values = {factor["name"]: _factor_from(factor, columns) for factor in self.factors}
        values |= {"nose": _sigmoid(columns["nose"]), "car_score": _sigmoid(columns["car"])}
        return {name: value.astype(np.float32) for name, value in values.items()}

    def accepts(self, pictures: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """Which pictures show one usable car: bool (N,)."""
        return self.read(pictures, batch_size)["car_score"] >= self.threshold

    def _embed(self, x: Tensor) -> Tensor:
        return 0.5 * (self.network(x)[0] + self.network(x.flip(3))[0])

    def _outputs(self, x: Tensor) -> Tensor:
        seen, mirrored = self.network(x)[1], self.network(x.flip(3))[1]
        outputs = 0.5 * (seen + mirrored)
        outputs[:, -2] = 0.5 * (seen[:, -2] - mirrored[:, -2])
        return outputs


def _factor_from(factor: dict[str, Any], columns: dict[str, np.ndarray]) -> np.ndarray:
    name = factor["name"]
    if factor["circular"]:
        return np.arctan2(columns[f"{name}.sin"], columns[f"{name}.cos"]) / (2 * np.pi) % 1.0
    return np.clip(columns[name] * factor["scale"] + factor["mean"], factor["low"], factor["high"])


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -30, 30)))


# ---- its file ---------------------------------------------------------------------------------------------------


def reader_to_bytes(network: ReaderNet, meta: dict[str, Any]) -> bytes:
    """The weights file: safetensors in half precision; `meta` and a sha256 over all of it in the metadata."""
    tensors = {
        name: value.detach().half().contiguous() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    text = json.dumps({"schema_version": READER_SCHEMA, **meta}, sort_keys=True)
    # One entry: safetensors writes several in random order, and equal readers would differ in their bytes.
    return safetensors.torch.save(tensors, {"reader": f"{_content_sha256(text, tensors)} {text}"})


def load_reader(path: Path = READER_PATH) -> Reader:
    """The factor reader that the repository ships. UserError when its file is missing or damaged."""
    try:
        content = path.read_bytes()
        with safetensors.safe_open(path, "pt") as file:
            stamp, _, text = (file.metadata() or {}).get("reader", "").partition(" ")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise UserError(f"{path}: the factor reader's weights are missing; {REMEDY}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]}); {REMEDY}") from error
    if stamp != _content_sha256(text, tensors):
        raise UserError(f"{path}: damaged (sha256 differs from the one written into it); {REMEDY}")
    meta = json.loads(text)
    if meta["schema_version"] != READER_SCHEMA:
        raise UserError(f"{path}: found schema version {meta['schema_version']}, allowed {READER_SCHEMA}; {REMEDY}")
    network = ReaderNet(len(output_names(meta["factors"])))
    network.load_state_dict(tensors)
    return Reader(network, meta, hashlib.sha256(content).hexdigest())


def _content_sha256(text: str, tensors: dict[str, Tensor]) -> str:
    whole = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()
