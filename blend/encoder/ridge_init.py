"""Initialises the encoder's linear skip: ridge regression from pixels to latents, on generated pictures.

In: a new encoder. Out: the weights of its `skip`, which depend only on the seed and the generators.
"""

import torch
from torch import Tensor

from blend.encoder.step import EncoderTraining, augment

CHUNK = 512


@torch.no_grad()
def fit_skip(run: EncoderTraining) -> None:
    """Least squares over pictures augmented like those the encoder is trained on."""
    skip = run.encoder.skip
    assert skip is not None
    device = skip.weight.device
    # float32 is exact enough for a chunk on a CPU; a GPU would round it to TF32.
    dtype = torch.float32 if device.type == "cpu" else torch.float64
    inputs, z_dim = skip.in_features + 1, skip.out_features
    gram = torch.zeros(inputs, inputs, dtype=torch.float64, device=device)
    moments = torch.zeros(inputs, z_dim, dtype=torch.float64, device=device)
    count = run.settings.skip_pictures
    for index in range(-(-count // CHUNK)):
        z, y = run.generator.latents.draw(run.streams, "encoder.skip", index, min(CHUNK, count - index * CHUNK))
        generator = run.streams.stream("encoder.skip.augment", index)
        pixels = run.encoder.skip_input(augment(run.draw(z, y).float(), run.settings.augment_strength, generator))
        pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1).to(dtype)
        gram += pixels.T @ pixels
        moments += pixels.T @ z.to(dtype)
    # The same as noise of this variance on every pixel.
    gram.diagonal().add_(run.settings.skip_ridge * count)
    solution: Tensor = torch.cholesky_solve(moments, torch.linalg.cholesky(gram)).float()
    skip.weight.copy_(solution[:-1].T)
    skip.bias.copy_(solution[-1])
