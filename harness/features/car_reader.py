"""The factor reader: a small network, trained on procedural cars, that predicts the renderer's factors.

In: uint8 (N, H, W, 3) of any size. Out: the factors, the side of the nose, and whether the picture shows a usable car.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from harness.features.featurizer import Featurizer, batches, mirror_averaged, pictures_to_input
from harness.features.weights_file import read_tensors, tensors_to_bytes

READER_PATH = Path(__file__).parents[1] / "weights" / "reader.safetensors"
REMEDY = "put the repository's file back, or train one with `python -m datasets reader`"


def conv_trunk(layers: Sequence[tuple[int, int, int]], size_px: int, dim: int) -> nn.Sequential:
    """3x3 convolutions (in, out, stride) with a total stride of 16, and an embedding of the flattened map:
    (B, 3, size_px, size_px) → (B, dim)."""
    parts: list[nn.Module] = []
    for inside, outside, stride in layers:
        parts += [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    flat = nn.Linear(layers[-1][1] * (size_px // 16) ** 2, dim, bias=False)
    return nn.Sequential(*parts, nn.Flatten(), flat, nn.BatchNorm1d(dim), nn.ReLU())


class ReaderNet(nn.Module):
    """Seven convolutions, an embedding, and linear heads.

    The last map (3 x 3) is flattened, not averaged, because lengths and the wheelbase depend on positions.
    """

    SIZE_PX = 48
    DIM = 128
    LAYERS = ((3, 24, 2), (24, 48, 2), (48, 64, 1), (64, 96, 2), (96, 96, 1), (96, 128, 2), (128, 64, 1))

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.trunk = conv_trunk(self.LAYERS, self.SIZE_PX, self.DIM)
        self.heads = nn.Linear(self.DIM, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (B, 3, 48, 48) in [-1, 1] → embedding (B, 128), outputs (B, len(output_names))."""
        embedding = self.trunk(x)
        return embedding, self.heads(embedding)


def output_names(factors: list[dict[str, Any]]) -> list[str]:
    """Outputs in order: one per factor, two for a circular one, then the side of the nose and the car logit."""
    names = []
    for factor in factors:
        names += [f"{factor['name']}.cos", f"{factor['name']}.sin"] if factor["circular"] else [factor["name"]]
    return [*names, "nose", "car"]


class Reader:
    """Predicts the renderer's factors from a picture, and whether it shows one usable car.

    Predictions are averaged over the picture and its mirror image; only `nose` differs between the two.

    Attributes:
        factors: one dict per factor: name, unit, low, high, mean, scale, circular.
        threshold: of `car_score`, from held-out renders.
        errors: factor → mean absolute error on held-out renders, in its unit (hue: in turns, for coloured paint).
        report: all held-out figures and the training recipe.
    """

    def __init__(self, network: ReaderNet, meta: dict[str, Any], sha256: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.meta, self.sha256 = meta, sha256
        self.factors: list[dict[str, Any]] = meta["factors"]
        self.threshold: float = meta["threshold"]
        self.errors: dict[str, float] = meta["errors"]
        self.report: dict[str, Any] = meta["report"]
        embed = mirror_averaged(lambda x: network(x)[0])
        self.featurizer = Featurizer("reader", network.SIZE_PX, sha256, network.DIM, embed)

    def read(self, pictures: np.ndarray, batch_size: int = 128) -> dict[str, np.ndarray]:
        """uint8 (N, H, W, 3) → float32 (N,) each: all factors in their units and ranges, car_score in [0, 1],
        nose in [0, 1] (1 = points left)."""
        parts = [
            self._outputs(x).numpy() for x in batches(pictures, self.network.SIZE_PX, batch_size, pictures_to_input)
        ]
        names = output_names(self.factors)
        columns = dict(zip(names, np.concatenate(parts).T, strict=True)) if parts else dict.fromkeys(names, np.zeros(0))
        values = {factor["name"]: _factor_from(factor, columns) for factor in self.factors}
        values |= {"nose": _sigmoid(columns["nose"]), "car_score": _sigmoid(columns["car"])}
        return {name: value.astype(np.float32) for name, value in values.items()}

    def accepts(self, pictures: np.ndarray, batch_size: int = 128) -> np.ndarray:
        """Which pictures show one usable car: bool (N,)."""
        return self.read(pictures, batch_size)["car_score"] >= self.threshold

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


# ---- weights ----------------------------------------------------------------------------------------------------


def reader_to_bytes(network: ReaderNet, meta: dict[str, Any]) -> bytes:
    """The weights file, in half precision; `meta`: the outputs and their errors."""
    return tensors_to_bytes("reader", network.state_dict(), meta)


def load_reader(path: Path = READER_PATH) -> Reader:
    """The repository's factor reader. UserError when its file is missing or damaged."""
    tensors, meta, sha256 = read_tensors(path, "reader", "the factor reader", REMEDY)
    network = ReaderNet(len(output_names(meta["factors"])))
    network.load_state_dict(tensors)
    return Reader(network, meta, sha256)
