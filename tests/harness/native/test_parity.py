"""The native engine against the real StudioGAN 0.2.0: golden numbers always, a checkout where there is one."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.errors import UserError
from harness.native.diffaug import apply_diffaug, numbers_to_draws
from harness.native.losses import LeCam, d_loss, g_loss
from harness.networks.arch import ArchSpec
from harness.networks.resnet import ResNetDiscriminator, ResNetGenerator
from harness.studiogan.checkout import ROOT, find_checkout
from tests.golden import parity_case as pc

pytestmark = pytest.mark.usefixtures("fuse_small_maps_too")
GOLDEN = pc.read_golden(pc.GOLDEN_NUMBERS)
POLICY = ("color", "translation", "cutout")
DTYPES = (torch.float32, torch.float64)
# Relative to each tensor's norm. float32: outputs 1e-5, everything that a backward pass made 1e-4.
TOLERANCE = {
    torch.float32: {"outputs": 1e-5, "losses": 1e-4, "d_gradients": 1e-4, "g_gradients": 1e-4},
    torch.float64: dict.fromkeys(("outputs", "losses", "d_gradients", "g_gradients", "d_after", "g_after"), 1e-8),
}
# As StudioGAN computes it, and as we do: 1x1 convolutions at the smaller size, 3x3 ones fused with the resampling.
WAYS = {"as-written": (False, False), "commuted": (True, False), "fused": (True, True)}


def spec_of(case: pc.Case, commute: bool = True, fuse: bool = True) -> ArchSpec:
    return ArchSpec(
        case.size,
        case.size,
        z_dim=case.z_dim,
        g_conv_dim=case.width,
        d_conv_dim=case.width,
        num_classes=case.num_classes,
        g_cond_mtd="cBN" if case.num_classes else None,
        d_cond_mtd="PD" if case.num_classes else None,
        apply_g_sn=case.g_sn,
        apply_d_sn=case.d_sn,
        apply_attn=case.attention,
        attn_g_loc=2,
        attn_d_loc=1,
        commute_1x1=commute,
        fuse_resampling=fuse,
    )


def update_both(case: pc.Case, dtype: torch.dtype, way: str) -> dict[str, dict[str, Tensor]]:
    """By our modules."""
    spec = spec_of(case, *WAYS[way])
    lecam = LeCam("standard", pc.LECAM_LAMBDA, pc.LECAM_DECAY, pc.LECAM_START)
    ema_real, ema_fake = torch.tensor([pc.LECAM_EMA_REAL, pc.LECAM_EMA_FAKE], dtype=dtype)
    lecam.load_state_dict({"ema_real": ema_real, "ema_fake": ema_fake})

    def augment(x: Tensor, numbers: Tensor) -> Tensor:
        return apply_diffaug(x, numbers_to_draws(numbers, x.shape, POLICY, x.dtype))

    def loss_of_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return d_loss("hinge", real_logits, fake_logits) + lecam.penalty(real_logits, fake_logits, pc.STEP)

    networks = ResNetGenerator(spec), ResNetDiscriminator(spec)
    return pc.update_both(case, dtype, networks, augment, loss_of_d, partial(g_loss, "hinge"))


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# Every case in the way that training uses; the other ways on the two that have all kinds of blocks.
RUNS = [(case, way) for case in pc.CASES for way in WAYS if way == "fused" or case in pc.CASES[:2]]


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize(("case", "way"), RUNS, ids=lambda value: getattr(value, "name", value))
def test_one_update_of_each_network_equals_studiogans(case: pc.Case, dtype: torch.dtype, way: str) -> None:
    result = update_both(case, dtype, way)
    for kind, tolerance in TOLERANCE[dtype].items():
        expected = GOLDEN[f"{case.name}/{dtype_name(dtype)}/{kind}"]
        exact_norms = GOLDEN[f"{case.name}/float64/{kind}"][:, 0]
        assert len(expected) == len(result[kind]), kind
        difference = pc.boiled_difference(pc.boil_down(result[kind]), expected, exact_norms)
        worst = int(difference.argmax())
        assert difference[worst] <= tolerance, (kind, list(result[kind])[worst], difference[worst])


def test_the_golden_case_is_not_trivial() -> None:
    """Logits on both sides of the hinge, pictures unsaturated, gradients alive: else parity would prove little."""
    for case in pc.CASES[:4]:
        result = update_both(case, torch.float64, "as-written")
        outputs = result["outputs"]
        assert outputs["g_fake"].abs().mean() < 0.8
        active = (outputs["real_logits"] < 1).sum() + (outputs["fake_logits"] > -1).sum()
        assert 0 < active < 2 * case.batch, case.name
        for kind in ("d_gradients", "g_gradients"):
            dead = [n for n, g in result[kind].items() if g.dim() > 1 and g.norm() < 1e-6]
            assert not dead, (case.name, kind, dead)


def test_state_dicts_have_studiogans_names_shapes_and_order() -> None:
    keys = json.loads(pc.GOLDEN_KEYS.read_text())
    assert len(keys) == 16
    with torch.device("meta"):
        for name, expected in keys.items():
            letter, size, *rest = name.split("-")
            full = bool(rest)
            case = pc.Case("", int(size), 64, 1, num_classes=5 if full else 0, attention=full, z_dim=128)
            network = {"G": ResNetGenerator, "D": ResNetDiscriminator}[letter](spec_of(case))
            assert [[key, list(value.shape)] for key, value in network.state_dict().items()] == expected, name


@pytest.mark.studiogan
def test_a_checkout_gives_the_golden_numbers_and_equals_ours_in_full(tmp_path: Path) -> None:
    try:
        checkout = find_checkout()
    except UserError as error:
        pytest.skip(f"no StudioGAN here ({error})")
    command = [sys.executable, "-m", "tests.golden.make_parity_golden", checkout, "--full", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    assert (tmp_path / pc.GOLDEN_KEYS.name).read_text() == pc.GOLDEN_KEYS.read_text()
    with np.load(tmp_path / pc.GOLDEN_NUMBERS.name) as recomputed:
        for name, expected in GOLDEN.items():
            if "/float64/" in name or name.endswith("/outputs"):
                assert pc.boiled_difference(recomputed[name], expected, expected[:, 0]).max() <= 1e-5, name
    for case in pc.CASES:
        for dtype in DTYPES:
            theirs = torch.load(tmp_path / f"{case.name}_{dtype_name(dtype)}.pt")
            ours = update_both(case, dtype, "fused")
            for kind, tolerance in TOLERANCE[dtype].items():
                assert list(ours[kind]) == list(theirs[kind])
                norms = np.array([float(t.detach().double().norm()) for t in theirs[kind].values()])
                scales = pc.scale_of(norms, GOLDEN[f"{case.name}/float64/{kind}"][:, 0])
                for (name, expected), scale in zip(theirs[kind].items(), scales, strict=True):
                    off = float((ours[kind][name] - expected).detach().double().norm()) / scale
                    assert off <= tolerance, (case.name, dtype, kind, name, off)
