"""An encoder that learned together with a generator learns on alone: the generator was still changing while it did.

In: a run's encoder, its generator and its training pictures. Out: runs/<base>/polished/<kind>.safetensors, which
`load_encoders` takes where it redraws pictures better.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blend.encoder.model import POLISHED, own_runs, polished_key, polished_path
from blend.generator.styled_generator import StyledGenerator
from harness.checkpoints.load import LoadedCheckpoint, load_own_encoder
from harness.config.experiment import Config
from harness.images.tensors import pictures_to_tensor
from harness.messages import log
from harness.native.state import open_training_set
from harness.networks.encoder import Encoder
from harness.runtime.device import prepare_hardware
from harness.runtime.rng import numpy_rng
from harness.storage.cache import Arrays, cached
from harness.storage.hdf5 import PackedSet

LR, BETAS, BATCH_SIZE = 2e-4, (0.9, 0.99), 8
JUDGED_SHARE, MAX_JUDGED = 0.1, 128  # of the training pictures: kept from it, to tell whether it helps


def polish_encoders(config: Config, generator: StyledGenerator) -> None:
    """`encoder.polish_steps` updates of each run's own encoder; what was polished before stays."""
    for kind, loaded in own_runs(generator):
        encoder, path = load_own_encoder(loaded), polished_path(generator, kind)
        key = polished_key(encoder, generator, kind)
        kept = cached(path, key, lambda: _learn(config, loaded, encoder), POLISHED)  # noqa: B023 (called at once)
        before, after, steps = kept["errors"][0], kept["errors"][1], int(kept["steps"])
        verdict = "taken" if after < before else "not taken"
        log(f"{loaded.name}: {steps} steps of its encoder alone, picture error {before:.4f} → {after:.4f}, {verdict}")


def _learn(config: Config, loaded: LoadedCheckpoint, start: Encoder) -> Arrays:
    """Weights as `weights.<name>`, steps, and the picture errors before and after on pictures kept from it."""
    steps, device = config.encoder.polish_steps, next(loaded.generator.parameters()).device
    hardware = prepare_hardware(config.train.model_copy(update={"device": device.type}))
    encoder = copy.deepcopy(start).requires_grad_(True)  # in eval mode: its statistics stay
    optimizer = torch.optim.Adam(encoder.parameters(), LR, BETAS)
    with open_training_set(loaded.config) as packed:
        order = numpy_rng(config.seed, "polish.order", 0).permutation(packed.count)
        judged, learned = np.split(order, [min(MAX_JUDGED, math.ceil(JUDGED_SHARE * packed.count))])
        for step in range(steps):
            rows = learned[numpy_rng(config.seed, "polish", step).integers(0, len(learned), BATCH_SIZE)]
            x, y = _batch(packed, rows, loaded)
            with hardware.autocast():
                z, logits = encoder(x)
                redrawn = loaded.generator(z, y)
            loss = (redrawn - x).square().mean()
            if logits is not None and y is not None:
                loss = loss + config.reconstruction.class_lambda * F.cross_entropy(logits, y)
            for group in optimizer.param_groups:
                group["lr"] = LR * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        errors = [_picture_error(network, loaded, packed, judged) for network in (start, encoder)]
    weights = {f"weights.{name}": value.detach().cpu().numpy() for name, value in encoder.state_dict().items()}
    return {**weights, "errors": np.array(errors), "steps": np.array(steps)}


def _batch(packed: PackedSet, rows: np.ndarray, loaded: LoadedCheckpoint) -> tuple[Tensor, Tensor | None]:
    """Pictures float32 (B, 3, H, W) in [-1, 1] and their classes, where there are any."""
    device = next(loaded.generator.parameters()).device
    x = pictures_to_tensor(torch.from_numpy(packed.read(rows)).to(device))
    return x, torch.from_numpy(packed.labels[rows]).to(device) if loaded.num_classes else None


@torch.no_grad()
def _picture_error(encoder: Encoder, loaded: LoadedCheckpoint, packed: PackedSet, rows: np.ndarray) -> float:
    """Mean squared difference of pixels in [-1, 1]."""
    sums = []
    for part in np.split(rows, range(BATCH_SIZE, len(rows), BATCH_SIZE)):
        x, y = _batch(packed, part, loaded)
        sums.append(float((loaded.generator(encoder(x)[0], y) - x).square().mean((1, 2, 3)).sum()))
    return sum(sums) / len(rows)
