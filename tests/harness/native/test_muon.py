"""Muon for convolutions, Adam for all other weights, no update after a non-finite gradient."""

import pytest
import torch
from torch import nn

from harness.native.muon import MuonAdam, orthogonalise


@pytest.mark.parametrize("shape", [(12, 108), (108, 12), (24, 24)])
def test_a_matrix_keeps_its_directions_and_loses_their_sizes(shape: tuple[int, int]):
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    x = u @ torch.diag(torch.logspace(-1, 1, len(v))) @ v
    found = u.t() @ orthogonalise(x) @ v.t()
    assert ((found.diagonal() > 0.6) & (found.diagonal() < 1.3)).all()
    torch.testing.assert_close(found, torch.diag(found.diagonal()), atol=1e-3, rtol=0)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.LazyLinear(2))


def _learn(network: nn.Sequential, optimizer: torch.optim.Optimizer, scale: float = 1.0) -> list[torch.Tensor]:
    """How one update changes each parameter."""
    loss = scale * network(torch.ones(2, 3, 5, 5)).square().sum()
    before = [p.detach().clone() for p in network.parameters()]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return [p.detach() - q for p, q in zip(network.parameters(), before, strict=True)]


def test_convolutions_learn_by_muon_and_all_else_by_adam():
    both, adam = _network(), _network()
    for network in (both, adam):
        network(torch.ones(1, 3, 5, 5))
    adam.load_state_dict(both.state_dict())
    of_both = _learn(both, MuonAdam(both, 1e-3, 0.02, betas=(0.5, 0.9), fused=True))
    of_adam = _learn(adam, torch.optim.Adam(adam.parameters(), 1e-3, (0.5, 0.9), fused=True))
    for (name, _), one, other in zip(both.named_parameters(), of_both, of_adam, strict=True):
        assert torch.equal(one, other) == (name != "0.weight"), name
    assert 0.3 * 0.02 < torch.linalg.matrix_norm(of_both[0].flatten(1), 2) < 1.3 * 0.02


def test_nothing_changes_where_a_gradient_is_not_finite():
    network = _network()
    network(torch.ones(1, 3, 5, 5))
    optimizer = MuonAdam(network, 1e-3, 0.02, fused=True)
    _learn(network, optimizer)
    momentum = optimizer.state[next(network.parameters())]["momentum"].clone()
    optimizer.found_inf = torch.ones(())
    assert not any(change.any() for change in _learn(network, optimizer, float("inf")))
    assert torch.equal(optimizer.state[next(network.parameters())]["momentum"], momentum)
