"""The encoder, from a picture to its latent."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.networks.autocast import to_full_precision, without_autocast
from harness.networks.layers import BatchNorm2d
from harness.networks.resnet18 import HALVINGS, ResNet18
from harness.runtime.latent_space import LatentSpace

SKIP_PIXELS = 2048  # maximum pixels of the skip's input


class Encoder(nn.Module):
    """x float32 (B, 3, H, W) in [-1, 1] → z float32 (B, z_dim), class logits float32 (B, num_classes) or None.

    Trained for a finished generator, it has a skip, linear in the pixels and fitted in closed form
    (`blend/encoder/ridge_init.py`), whose output is added to the ResNet's. Most directions of z change a picture little
    and nearly linearly: a network needs very many updates to learn them, least squares none.

    Trained jointly with the generator (`standardised`), it has none. Batch norm without gain gives each component of z
    mean 0 and variance 1 over the training pictures, and `whitening` removes their correlations, so that z is
    distributed like the normal latents of samples.

    Attributes:
        sha256: of the weights file; "" for untrained weights.
        step: number of training updates.
    """

    def __init__(
        self,
        trunk: ResNet18,
        latents: LatentSpace,
        height: int,
        width: int,
        head_dims: Sequence[int] = (),
        standardised: bool = False,
    ) -> None:
        super().__init__()
        self.height, self.width, self.num_classes = height, width, latents.num_classes
        (z_dim,) = latents.shape
        self.sha256, self.step = "", 0
        self.trunk = trunk
        factor = 2 ** HALVINGS[trunk.stem]
        # Positions in the picture matter for z: the last map is flattened, not averaged.
        features = 8 * trunk.width * -(-height // factor) * -(-width // factor)
        hidden: list[nn.Module] = []
        for count in head_dims:
            hidden += [nn.Linear(features, count), nn.ReLU()]
            features = count
        self.hidden = nn.Sequential(*hidden)
        self.to_z = nn.Linear(features, z_dim)
        nn.init.zeros_(self.to_z.bias)
        self.skip = None
        self.standardise = BatchNorm2d(z_dim, affine=False) if standardised else None
        self.whitening = Whitening(z_dim) if standardised else None
        if standardised:
            nn.init.normal_(self.to_z.weight, std=features**-0.5)
        else:
            self.shrink = 1
            while (height // self.shrink) * (width // self.shrink) > SKIP_PIXELS:
                self.shrink *= 2
            pixels = 3 * (height // self.shrink) * (width // self.shrink)
            self.skip = nn.Linear(pixels, z_dim).requires_grad_(False)
            for values in (self.skip.weight, self.skip.bias, self.to_z.weight):  # both outputs start at 0
                nn.init.zeros_(values)
        self.to_class = nn.Linear(features, self.num_classes) if self.num_classes else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        z, class_logits = self.unwhitened(x)
        return z if self.whitening is None else self.whitening(z), class_logits

    def unwhitened(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `forward`, without whitening."""
        assert x.shape[1:] == (3, self.height, self.width), x.shape
        h = self.hidden(self.trunk(x).flatten(1))
        with without_autocast(x):
            z = self.to_z(to_full_precision(h))
            if self.skip is not None:
                z = self.skip(self.skip_input(x)) + z
            if self.standardise is not None:
                z = self.standardise(z[:, :, None, None]).flatten(1)
        return z, None if self.to_class is None else to_full_precision(self.to_class(h))

    def skip_input(self, x: Tensor) -> Tensor:
        """Input of the skip: float32 (B, 3 * h * w), the shrunken picture."""
        x = to_full_precision(x)
        return (F.avg_pool2d(x, self.shrink) if self.shrink > 1 else x).flatten(1)


class Whitening(nn.Module):
    """z float32 (B, d) → (B, d) with uncorrelated components, as near to z as possible (ZCA; Kessy et al. 2018).

    Computed from a running mean of second moments, without gradient. A share FLOOR of the identity is mixed in, which
    bounds the gain of directions in which pictures hardly differ.

    Attributes:
        frozen: `update` does nothing; a fine-tuned run keeps the latents of its base run.
    """

    MOMENTUM, FLOOR, EVERY = 0.005, 0.05, 10

    second_moment: Tensor
    matrix: Tensor
    updates: Tensor

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.frozen = False
        self.register_buffer("second_moment", torch.eye(z_dim))
        self.register_buffer("matrix", torch.eye(z_dim))
        self.register_buffer("updates", torch.tensor(0))

    def forward(self, z: Tensor) -> Tensor:
        return z @ self.matrix

    @torch.no_grad()
    def update(self, second_moment: Tensor) -> None:
        """Adds a batch's second moment, (d, d)."""
        if self.frozen:
            return
        self.second_moment.lerp_(second_moment, self.MOMENTUM)
        if int(self.updates) % self.EVERY == 0:
            eye = torch.eye(len(self.matrix)).to(self.second_moment)
            values, vectors = torch.linalg.eigh(self.second_moment.lerp(eye, self.FLOOR).double())
            # A new tensor: the backward pass of a batch needs the matrix of its forward pass.
            self.matrix = ((vectors * values.clamp(min=1e-6).rsqrt()) @ vectors.t()).to(self.matrix.dtype)
        self.updates += 1

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Encoders of earlier versions have no whitening: the initial identity is kept."""
        kept = {prefix + name: value for name, value in self.state_dict().items()}
        super()._load_from_state_dict({**kept, **state_dict}, prefix, *rest)
