"""Further training of an encoder that learned together with a generator, with the generator frozen.

In: a run's encoder, its generator and its training pictures. Out: runs/<base>/polished/<kind>.safetensors, which
`load_encoders` uses if its picture error is lower.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from blend.encoder.model import POLISHED, joint_runs, polished_key, polished_path
from blend.generator.picture_error import picture_error
from blend.generator.styled_generator import StyledGenerator
from harness.checkpoints.load import LoadedCheckpoint, load_joint_encoder
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
VALID_SHARE, MAX_VALID = 0.1, 128  # of the training pictures, held out to measure whether it helps


def polish_encoders(config: Config, generator: StyledGenerator) -> None:
    """`encoder.polish_steps` updates of each run's joint encoder; one that was polished before stays."""
    for kind, loaded in joint_runs(generator):
        encoder, path = load_joint_encoder(loaded), polished_path(generator, kind)
        key = polished_key(encoder, generator, kind)
        kept = cached(path, key, lambda: _learn(config, loaded, encoder), POLISHED)  # noqa: B023 (called at once)
        before, after, steps = kept["errors"][0], kept["errors"][1], int(kept["steps"])
        verdict = "used" if after < before else "not used"
        log(f"{loaded.name}: {steps} steps of its encoder alone, picture error {before:.4f} → {after:.4f}, {verdict}")


def _learn(config: Config, loaded: LoadedCheckpoint, start: Encoder) -> Arrays:
    """Weights as `weights.<name>`, steps, and the picture errors before and after on held-out pictures."""
    steps, device = config.encoder.polish_steps, next(loaded.generator.parameters()).device
    hardware = prepare_hardware(config.train.model_copy(update={"device": device.type}))
    encoder = copy.deepcopy(start).requires_grad_(True)  # in eval mode: batch-norm statistics stay
    optimizer = torch.optim.Adam(encoder.parameters(), LR, BETAS)
    with open_training_set(loaded.config) as packed:
        order = numpy_rng(config.seed, "polish.order", 0).permutation(packed.count)
        valid, train = np.split(order, [min(MAX_VALID, math.ceil(VALID_SHARE * packed.count))])
        for step in range(steps):
            rows = train[numpy_rng(config.seed, "polish", step).integers(0, len(train), BATCH_SIZE)]
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
        errors = [_mean_error(network, loaded, packed, valid) for network in (start, encoder)]
    weights = {f"weights.{name}": value.detach().cpu().numpy() for name, value in encoder.state_dict().items()}
    return {**weights, "errors": np.array(errors), "steps": np.array(steps)}


def _batch(packed: PackedSet, rows: np.ndarray, loaded: LoadedCheckpoint) -> tuple[Tensor, Tensor | None]:
    """Pictures float32 (B, 3, H, W) in [-1, 1] and their classes, if there are any."""
    device = next(loaded.generator.parameters()).device
    x = pictures_to_tensor(torch.from_numpy(packed.read(rows)).to(device))
    return x, torch.from_numpy(packed.labels[rows]).to(device) if loaded.num_classes else None


@torch.no_grad()
def _mean_error(encoder: Encoder, loaded: LoadedCheckpoint, packed: PackedSet, rows: np.ndarray) -> float:
    sums = []
    for part in np.split(rows, range(BATCH_SIZE, len(rows), BATCH_SIZE)):
        x, y = _batch(packed, part, loaded)
        sums.append(float(picture_error(loaded.generator(encoder(x)[0], y), x).sum()))
    return sum(sums) / len(rows)
