"""Spectral norm (Miyato et al. 2018), with the keys of torch.nn.utils.spectral_norm and so of StudioGAN."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.networks.autocast import without_autocast

SN_EPS = 1e-6


class _WeightOverSigma(torch.autograd.Function):
    """W / (u' W v) for W (O, K) with constant u and v; autograd's formula needs three more passes over W."""

    @staticmethod
    def forward(ctx, weight: Tensor, u: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
        ctx.save_for_backward(weight, u, v, sigma)
        return weight / sigma

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor):
        (grad,) = grad_outputs
        weight, u, v, sigma = ctx.saved_tensors
        along = torch.dot(grad.reshape(-1), weight.reshape(-1)) / sigma
        grad_weight = torch.addcmul(grad, (u * along).unsqueeze(1), v.unsqueeze(0), value=-1.0)
        return grad_weight.div_(sigma), None, None, None


class SpectralNorm:
    """Mixin, listed before the layer's class, that divides its weight by the largest singular value (power iteration).

    Keys are those of torch.nn.utils.spectral_norm: `weight_orig`, `weight_u`, `weight_v`. The module stores nothing
    computed, so it can be copied, pickled and compiled at any time. `frozen = True` stops the iteration in training
    too.
    """

    weight_orig: nn.Parameter
    weight_u: Tensor
    weight_v: Tensor
    training: bool
    frozen: bool = False
    stepwise: bool = False  # autograd's formula, as in StudioGAN

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        assert isinstance(self, nn.Module)
        weight = self._parameters.pop("weight")
        assert weight is not None
        self.register_parameter("weight_orig", weight)  # after `bias`, as in StudioGAN's state dicts
        self.register_buffer("weight_u", torch.empty(weight.shape[0]))
        self.register_buffer("weight_v", torch.empty(weight[0].numel()))
        self.draw_vectors(None)

    @torch.no_grad()
    def draw_vectors(self, generator: torch.Generator | None) -> None:
        """Random unit vectors for the start of the power iteration."""
        for vector in (self.weight_u, self.weight_v):
            F.normalize(vector.normal_(generator=generator), dim=0, eps=SN_EPS, out=vector)

    def effective_weight(self) -> Tensor:
        """The normalised weight, in `weight_orig`'s shape and precision; in training after one power iteration."""
        weight = self.weight_orig
        with without_autocast(weight):
            # Rows in memory order: a channels-last weight is (O, kh, kw, I), and flattening it needs no copy.
            moved = weight.dim() == 4 and not weight.is_contiguous()
            rows = (weight.permute(0, 2, 3, 1) if moved else weight).reshape(weight.shape[0], -1)
            v = _reorder(self.weight_v, weight.shape) if moved else self.weight_v
            with torch.no_grad():
                if self.training and not self.frozen:
                    v = F.normalize(torch.mv(rows.t(), self.weight_u), dim=0, eps=SN_EPS)
                    towards_u = torch.mv(rows, v)
                    u = F.normalize(towards_u, dim=0, eps=SN_EPS)
                    self.weight_u.copy_(u)
                    self.weight_v.copy_(_restore(v, weight.shape) if moved else v)
                else:
                    # Copies: a training forward may change the buffers before this graph's backward.
                    u, v = self.weight_u.clone(), v.clone()
                    towards_u = torch.mv(rows, v)
                sigma = torch.dot(u, towards_u)
            if self.stepwise:
                return weight / torch.dot(u, torch.mv(rows, v))
            normalised = _WeightOverSigma.apply(rows, u, v, sigma)
            assert isinstance(normalised, Tensor)
            if not moved:
                return normalised.view(weight.shape)
            out, inner, height, width = weight.shape
            return normalised.view(out, height, width, inner).permute(0, 3, 1, 2)


def _reorder(v: Tensor, shape: torch.Size) -> Tensor:
    """(I*kh*kw,) as stored -> (kh*kw*I,), the memory order of a channels-last weight."""
    return v.view(shape[1], -1).t().reshape(-1)


def _restore(v: Tensor, shape: torch.Size) -> Tensor:
    return v.view(-1, shape[1]).t().reshape(-1)
