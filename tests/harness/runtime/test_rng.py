"""Random numbers are a function of (seed, purpose, index), whatever was drawn before, in any number of processes."""

import numpy as np
import torch

from harness.runtime.rng import RandomStreams, numpy_rng, seed_for

CPU = torch.device("cpu")


def test_streams_are_functions_of_their_names() -> None:
    streams = RandomStreams(1, CPU)
    first = streams.latents("d.latents", 3, 8, 5, 2)
    streams.latents("g.latents", 0, 100, 5, 0)
    for again in (streams.latents("d.latents", 3, 8, 5, 2), RandomStreams(1, CPU).latents("d.latents", 3, 8, 5, 2)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True) if a is not None and b is not None)
    others = [
        RandomStreams(1, CPU).latents("d.latents", 4, 8, 5, 2),
        RandomStreams(1, CPU).latents("g.latents", 3, 8, 5, 2),
    ]
    others.append(RandomStreams(2, CPU).latents("d.latents", 3, 8, 5, 2))
    assert all(not torch.equal(first[0], other[0]) for other in others)


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    RandomStreams(1, CPU).latents("x", 0, 8, 5, 2)
    numpy_rng(1, "x").random(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_shares_are_cuts_of_the_whole() -> None:
    whole, labels = RandomStreams(1, CPU).latents("x", 7, 12, 5, 3)
    parts = [RandomStreams(1, CPU, slice(k * 4, k * 4 + 4)).latents("x", 7, 12, 5, 3) for k in range(3)]
    assert torch.equal(torch.cat([z for z, _ in parts]), whole)
    assert labels is not None and labels.min() == 0 and labels.max() == 2
    assert torch.equal(torch.cat([y for _, y in parts if y is not None]), labels)


def test_latents_are_normal_and_neighbours_unrelated() -> None:
    z = torch.stack([RandomStreams(0, CPU).latents("x", index, 64, 64, 0)[0] for index in range(64)]).flatten(1)
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01
    assert (torch.corrcoef(z) - torch.eye(64)).abs().max() < 0.08  # 5 sigma of 4,096 numbers
    assert RandomStreams(0, CPU).latents("x", 0, 4, 3, 0)[1] is None


def test_seeds_do_not_collide() -> None:
    seeds = {seed_for(s, p, i) for s in range(10) for p in ("order", "flip", "d.latents") for i in range(1000)}
    assert len(seeds) == 30_000 and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_for(1, "a", 23) != seed_for(1, "a2", 3)
    assert np.array_equal(numpy_rng(5, "order", 2).permutation(9), numpy_rng(5, "order", 2).permutation(9))
