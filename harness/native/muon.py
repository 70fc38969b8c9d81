"""Muon (Jordan et al. 2024) for convolutions, Adam for all other weights, in one optimiser.

The momentum of a convolution, as a matrix (C_out, C_in * 3 * 3), is replaced by approximately the nearest matrix with
orthonormal rows or columns: all directions of the weights learn at the same rate, whatever the size of their gradient.
"""

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.9
# a x + b x^3 + c x^5, applied five times, maps singular values in [0.01, 1] to within 0.3 of 1 (Jordan et al.).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(x: Tensor) -> Tensor:
    """Float (m, n) -> (m, n) with the same singular vectors and singular values of about 1.

    The iteration runs on the smaller Gram matrix: all factors commute, so x is multiplied once.
    """
    if x.shape[0] > x.shape[1]:
        return orthogonalise(x.t()).t()
    x = x / torch.linalg.vector_norm(x).clamp(min=1e-12)
    gram, identity = x @ x.t(), torch.eye(len(x), dtype=x.dtype, device=x.device)
    factor, (a, b, c) = identity, NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        polynomial = a * identity + b * gram + c * gram @ gram
        factor, gram = polynomial @ factor, polynomial @ gram @ polynomial
    return factor @ x


class MuonAdam(torch.optim.Adam):
    """Adam with two parameter groups: `muon_lr` is the rate of the second, the 3x3 convolutions.

    As in fused Adam, `step` changes nothing if `found_inf` is set.
    """

    found_inf: Tensor | None = None

    def __init__(self, network: nn.Module, lr: float, muon_lr: float, **adam: Any) -> None:
        convolutions = [p for p in network.parameters() if p.dim() == 4 and p.shape[2] > 1]
        others = [p for p in network.parameters() if p.dim() != 4 or p.shape[2] == 1]
        super().__init__([{"params": others}, {"params": convolutions, "lr": muon_lr}], lr, **adam)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        group = self.param_groups[1]
        for weight in group["params"]:
            if weight.grad is not None:
                self._update(weight, group["lr"])
        convolutions, group["params"] = group["params"], []
        super().step()
        group["params"] = convolutions

    def _update(self, weight: Tensor, lr: float) -> None:
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            # Adam loads the state of both groups and needs `step`.
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
        momentum = state["momentum"]
        now = momentum.lerp(weight.grad, 1 - MOMENTUM)
        direction = orthogonalise(weight.grad.lerp(now, MOMENTUM).flatten(1)).view_as(weight)  # Nesterov's
        if self.found_inf is not None:
            finite = self.found_inf == 0
            now, direction = torch.where(finite, now, momentum), torch.where(finite, direction, 0.0)
        momentum.copy_(now)
        rows, columns = len(weight), weight[0].numel()
        weight.sub_(direction, alpha=lr * max(1.0, rows / columns) ** 0.5)
