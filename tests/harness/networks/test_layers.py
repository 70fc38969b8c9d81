"""Spectral norm equals torch's, batch norm works over ranks and in bf16, initialisation is StudioGAN's."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from harness.networks.layers import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    SNConv2d,
    SNEmbedding,
    SNLinear,
    init_weights,
    round_as_studiogan,
)
from harness.networks.spectral_norm import SN_EPS, SpectralNorm
from tests.conftest import ROOT
from tests.harness.networks.batch_norm_ranks import evaluate
from tests.harness.tiny_runs import assert_same_state

PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], Tensor]] = {
    "conv": (lambda: SNConv2d(4, 6, 3, padding=1), lambda: nn.Conv2d(4, 6, 3, padding=1), torch.randn(2, 4, 5, 5)),
    "linear": (lambda: SNLinear(5, 3), lambda: nn.Linear(5, 3), torch.randn(2, 5)),
    "embedding": (lambda: SNEmbedding(4, 6), lambda: nn.Embedding(4, 6), torch.tensor([0, 3, 3])),
}


def sn_layers(network: nn.Module) -> list[SpectralNorm]:
    return [layer for layer in network.modules() if isinstance(layer, SpectralNorm)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", PAIRS)
def test_spectral_norm_is_torchs_legacy_one(kind: str, layout: torch.memory_format) -> None:
    """Same keys, outputs, gradients and vectors over several updates; u and v stay put in evaluation."""
    make_ours, make_theirs, x = PAIRS[kind]
    ours, theirs = make_ours().double(), spectral_norm(make_theirs(), eps=SN_EPS).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    ours.to(memory_format=layout)  # type: ignore[call-overload]
    x = x if kind == "embedding" else x.double()
    for training in (True, True, False, True):
        outputs = []
        for layer in (ours.train(training), theirs.train(training)):
            layer.zero_grad()
            outputs.append(layer(x) + 2 * layer(x))  # two calls in one graph
            outputs[-1].square().sum().backward()
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-10, atol=1e-10)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert p.grad is not None and q.grad is not None
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-9)
            with torch.no_grad():
                p -= 0.1 * q.grad
                q -= 0.1 * q.grad


@pytest.mark.parametrize("kind", PAIRS)
def test_spectral_norm_in_studiogans_order_is_torchs_bit_for_bit(kind: str) -> None:
    make_ours, make_theirs, x = PAIRS[kind]
    layers = make_ours(), spectral_norm(make_theirs(), eps=SN_EPS)
    layers[0].load_state_dict(layers[1].state_dict())
    round_as_studiogan(layers[0])
    outputs = [layer(x) + 2 * layer(x) for layer in layers]
    assert torch.equal(*outputs)
    for out in outputs:
        out.square().sum().backward()
    for p, q in zip(*(layer.parameters() for layer in layers), strict=True):
        assert p.grad is not None and q.grad is not None and torch.equal(p.grad, q.grad)


def test_conditional_batch_norm_in_studiogans_order_rounds_twice() -> None:
    layer = ConditionalBatchNorm2d(64, 3, sn=False)
    x, y = torch.randn(4, 64, 8, 8), torch.tensor([0, 2, 1, 2])
    gain, bias = (table(y)[:, :, None, None] for table in (layer.embed0, layer.embed1))
    expected = layer.bn(x) * (1 + gain) + bias
    assert not torch.equal(layer(x, y), expected)
    round_as_studiogan(layer)
    assert torch.equal(layer(x, y), expected)


def test_a_layer_is_copied_after_use() -> None:
    layer = SNConv2d(2, 3, 3)
    x = torch.randn(1, 2, 4, 4)
    layer(x).sum().backward()
    torch.testing.assert_close(copy.deepcopy(layer).eval()(x), layer.eval()(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_frozen_vectors_do_not_move(layout: torch.memory_format) -> None:
    layer = SNConv2d(4, 6, 3).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(1, 4, 5, 5)
    layer(x)
    layer.frozen = True
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    frozen = layer(x)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), name
    layer.frozen = False
    layer.eval()
    assert torch.equal(layer(x), frozen)
    layer.train()(x)
    assert not torch.equal(layer.weight_u, before["weight_u"])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_power_iteration_stays_in_float32_under_autocast(device: str) -> None:
    plain = SNConv2d(8, 8, 3).to(device)
    cast = copy.deepcopy(plain)
    x = torch.randn(1, 8, 6, 6, device=device)
    expected = plain(x)
    with torch.autocast(device, torch.bfloat16):
        out = cast(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(cast.weight_u, plain.weight_u) and torch.equal(cast.weight_v, plain.weight_v)
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)


@torch.no_grad()
def test_init_kinds() -> None:
    def drawn(kind: str, seed: int = 1) -> dict[str, Tensor]:
        layers = {"conv": SNConv2d(20, 40, 3), "linear": nn.Linear(30, 50), "table": SNEmbedding(40, 60)}
        network = nn.ModuleDict(layers)
        network["linear"].get_parameter("bias").fill_(1.0)
        init_weights(network, kind, torch.Generator().manual_seed(seed))
        return dict(network.state_dict())

    ortho = drawn("ortho")
    for name in ("conv.weight_orig", "table.weight_orig"):
        rows = ortho[name].flatten(1)
        torch.testing.assert_close(rows @ rows.t(), torch.eye(40), rtol=0, atol=1e-5)
    assert not ortho["linear.bias"].any() and not ortho["conv.bias"].any()
    assert drawn("N02")["conv.weight_orig"].std().item() == pytest.approx(0.02, rel=0.05)
    bound = (6 / (20 * 9 + 40 * 9)) ** 0.5
    assert bound * 0.98 < drawn("glorot")["conv.weight_orig"].abs().max().item() <= bound
    assert_same_state(drawn("glorot"), drawn("xavier"))
    for name, value in drawn("ortho", seed=2).items():  # vectors of power iteration included
        assert torch.equal(value, ortho[name]) == ("bias" in name), name


def test_batch_norm_of_bf16_keeps_float32_statistics() -> None:
    norm = BatchNorm2d(3)
    x = (torch.randn(8, 3, 6, 6) * 2 + 5).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    exact = BatchNorm2d(3)
    exact(x.float())
    torch.testing.assert_close(norm.state_dict(), exact.state_dict(), rtol=1e-3, atol=1e-3)


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    norm, moving = BatchNorm2d(3), BatchNorm2d(3)
    norm.frozen = True
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(norm(x), moving(x))
    assert not norm.state_dict()["running_mean"].any() and moving.state_dict()["running_mean"].any()


def test_conditional_batch_norm_by_hand() -> None:
    norm = ConditionalBatchNorm2d(2, num_classes=3, sn=False)
    x, y = torch.randn(5, 2, 4, 4), torch.tensor([0, 1, 2, 1, 0])
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    plain = (x - mean[:, None, None]) / (var[:, None, None] + 1e-4).sqrt()
    gain, bias = 1 + norm.embed0.weight[y], norm.embed1.weight[y]
    torch.testing.assert_close(norm(x, y), plain * gain[:, :, None, None] + bias[:, :, None, None])


def test_two_ranks_give_what_one_process_gives(tmp_path: Path) -> None:
    """Outputs, gradients of input and weights, running statistics."""
    command = [sys.executable, "-m", "tests.harness.networks.batch_norm_ranks", str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)], cwd=ROOT, stderr=subprocess.PIPE) for rank in (0, 1)]
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors

    # float32: the mean is 3,000 times the deviation, so E[x^2] - E[x]^2 would have no correct digit.
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-2)):
        whole = evaluate(dtype, slice(None))
        first, second = (torch.load(tmp_path / f"{rank}.pt")[dtype] for rank in (0, 1))
        for name, expected in whole.items():
            if name in ("out", "grad_x"):
                got = torch.cat([first[name], second[name]])
            elif name.startswith("running"):
                assert torch.equal(first[name], second[name]), name
                got = first[name]
            else:  # gradients of the weights: summed over ranks, as the losses are sums
                got = first[name] + second[name]
            torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
