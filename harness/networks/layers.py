"""Layers with optional spectral norm; synchronised and conditional batch norm.

Parameter and buffer names and order are StudioGAN 0.2.0's (`utils/model_ops.py`), so its weights load unchanged.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from harness.networks.autocast import to_full_precision, without_autocast
from harness.networks.spectral_norm import SpectralNorm

BN_EPS = 1e-4
BN_MOMENTUM = 0.1
# Of torchvision's weights, for pictures in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SNConv2d(SpectralNorm, nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.effective_weight(), self.bias)


class SNConvTranspose2d(SpectralNorm, nn.ConvTranspose2d):
    """Its weight is (I, O, kh, kw), that of the adjoint convolution, which has the same norm."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        assert output_size is None
        padding = self.padding
        return F.conv_transpose2d(input, self.effective_weight(), self.bias, self.stride, padding)  # type: ignore[arg-type]


class SNLinear(SpectralNorm, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.effective_weight(), self.bias)


class SNEmbedding(SpectralNorm, nn.Embedding):
    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.effective_weight())


def conv2d(in_channels: int, out_channels: int, kernel_size: int, *, sn: bool, bias: bool = True) -> nn.Conv2d:
    """Size-preserving convolution with optional spectral norm."""
    kind = SNConv2d if sn else nn.Conv2d
    return kind(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


def linear(in_features: int, out_features: int, *, sn: bool) -> nn.Linear:
    return SNLinear(in_features, out_features) if sn else nn.Linear(in_features, out_features)


def embedding(num_embeddings: int, embedding_dim: int, *, sn: bool) -> nn.Embedding:
    return SNEmbedding(num_embeddings, embedding_dim) if sn else nn.Embedding(num_embeddings, embedding_dim)


def embed(layer: nn.Embedding, y: Tensor) -> Tensor:
    """Embeddings (B, d) of classes int64 (B,), or weighted means by float (B, num_classes)."""
    if not y.is_floating_point():
        return layer(y)
    weight = layer_weight(layer)
    return (y.double() @ weight.double()).to(weight.dtype)  # double: unaffected by autocast and TF32


def layer_weight(layer: nn.Module) -> Tensor:
    """The weight that a layer applies, normalised if it has spectral norm."""
    return layer.effective_weight() if isinstance(layer, SpectralNorm) else layer.get_parameter("weight")


def init_weights(module: nn.Module, kind: str, generator: torch.Generator | None = None) -> None:
    """StudioGAN 0.2.0's initialisation: convolution, linear and embedding weights by `kind`, biases 0, new power
    iteration.

    `kind`: ortho, N02 (normal, sigma 0.02), glorot = xavier. `generator` is on the weights' device.
    """
    for layer in module.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            continue
        weight = layer.weight_orig if isinstance(layer, SpectralNorm) else layer.weight
        if kind == "ortho":
            nn.init.orthogonal_(weight, generator=generator)
        elif kind == "N02":
            nn.init.normal_(weight, 0.0, 0.02, generator=generator)
        elif kind in ("glorot", "xavier"):
            nn.init.xavier_uniform_(weight, generator=generator)
        else:
            raise AssertionError(f"unknown init {kind!r}")
        if not isinstance(layer, nn.Embedding) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if isinstance(layer, SpectralNorm):
            layer.draw_vectors(generator)


# ---- Batch norm ----------------------------------------------------------------------------------


class _SumOverRanks(torch.autograd.Function):
    """all_reduce(sum) with gradient all_reduce(sum): every rank's loss depends on every rank's input."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        return _SumOverRanks.apply(grad_outputs[0])


def _moments_over_ranks(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Per-rank mean and (biased) variance (C,) of equal numbers of values -> those over all ranks, in one collective.

    From deviations (Chan et al. 1979), not E[x^2] - E[x]^2, which loses all digits for a large mean.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    local = torch.stack([mean, var])
    before, after = local.new_zeros(rank, *local.shape), local.new_zeros(ranks - 1 - rank, *local.shape)
    everyone = _SumOverRanks.apply(torch.cat([before, local.unsqueeze(0), after]))
    assert isinstance(everyone, Tensor)
    means, variances = everyone[:, 0], everyone[:, 1]  # (ranks, C)
    total_mean = means.mean(0)
    return total_mean, (variances + (means - total_mean).square()).mean(0)


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d with optional statistics over all ranks, on CPU too. Same state dict.

    `synchronised`: statistics over all ranks, which must have equal numbers of pictures. `frozen`: running statistics
    are not updated.
    """

    synchronised: bool = False
    frozen: bool = False

    def __init__(self, num_features: int, affine: bool = True, eps: float = BN_EPS):
        super().__init__(num_features, eps=eps, momentum=BN_MOMENTUM, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        if self.training and self.synchronised and dist.is_initialized() and dist.get_world_size() > 1:
            return self._forward_synchronised(input)
        if self.training and self.frozen:
            return F.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(input)

    def _forward_synchronised(self, input: Tensor) -> Tensor:
        with without_autocast(input):
            x = to_full_precision(input)
            var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
            mean, var = _moments_over_ranks(mean, var)
            if not self.frozen:
                self._update_running(mean.detach(), var.detach(), x.numel() // x.shape[1] * dist.get_world_size())
            scale = torch.rsqrt(var + self.eps)
            if self.affine:
                scale = scale * self.weight
            out = (x - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
            if self.affine:
                out = out + self.bias.view(1, -1, 1, 1)
            return out.to(input.dtype)

    def _update_running(self, mean: Tensor, var: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), BN_MOMENTUM)
        self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), BN_MOMENTUM)


def synchronise_batch_norm(module: nn.Module, on: bool = True) -> None:
    """Switch statistics over all ranks on or off in every batch norm of `module`."""
    for layer in module.modules():
        if isinstance(layer, BatchNorm2d):
            layer.synchronised = on


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm with gain 1 + embed0(y) and bias embed1(y), as StudioGAN 0.2.0's cBN; y as in `embed`."""

    stepwise: bool = False  # product and sum rounded separately, as in StudioGAN

    def __init__(self, num_features: int, num_classes: int, sn: bool):
        super().__init__()
        self.bn = BatchNorm2d(num_features, affine=False)
        self.embed0 = embedding(num_classes, num_features, sn=sn)
        self.embed1 = embedding(num_classes, num_features, sn=sn)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out = self.bn(x)
        gain = (1 + embed(self.embed0, y)).to(out.dtype)[:, :, None, None]
        bias = embed(self.embed1, y).to(out.dtype)[:, :, None, None]
        return out * gain + bias if self.stepwise else torch.addcmul(bias, out, gain)


def round_as_studiogan(module: nn.Module) -> None:
    """Make every layer of `module` compute in StudioGAN's order: slower, and equal bit for bit."""
    for layer in module.modules():
        if isinstance(layer, SpectralNorm | ConditionalBatchNorm2d):
            layer.stepwise = True


# ---- Input ---------------------------------------------------------------------------------------


class Normalise(nn.Module):
    """x float32 (B, 3, H, W) in [-1, 1] → pictures in [0, 1], minus `mean`, divided by `std`.

    Adds nothing to a state dict. Its values exist even on a network created on the meta device.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, device="cpu")[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return ((x + 1) / 2 - self.mean) / self.std
