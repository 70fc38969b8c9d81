"""Copies of training pictures get a WARN, other pictures pass; nearest pictures are those of a plain search."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blend.measures.novelty import FeatureSpace, Novelty, ReferenceSet, discriminator_space, find_nearest, reader_space
from harness.features import load_featurizer
from harness.networks.build import build_networks
from tests.blend.tiny_blend import tiny_config
from tests.harness.pictures import encoded

HEIGHT, WIDTH = 32, 48
SETS = (("cars", 70), ("concept", 50))
COPIED = np.r_[0:50, 70:120]  # rows of both sets


def smooth(count: int, seed: int) -> np.ndarray:
    """uint8 (count, 32, 48, 3): a random scene each."""
    rng = np.random.default_rng(seed)
    coarse = map(Image.fromarray, rng.integers(0, 256, (count, 4, 6, 3), dtype=np.uint8))
    return np.stack([np.array(picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) for picture in coarse])


def reencoded(pictures: np.ndarray) -> np.ndarray:
    files = (io.BytesIO(encoded(picture, "JPEG", quality=75)) for picture in pictures)
    return np.stack([np.array(Image.open(file)) for file in files])


def mirrored(pictures: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pictures[:, :, ::-1])


def discriminator(img_size: list[int], conv_dim: int) -> Any:
    config = tiny_config(data__img_size=img_size, model__d_conv_dim=conv_dim)
    return build_networks(config, 0, torch.device("cpu"))[1].eval().requires_grad_(False)


@pytest.fixture(scope="module")
def spaces() -> list[FeatureSpace]:
    return [reader_space(load_featurizer()), discriminator_space(discriminator([HEIGHT, WIDTH], 8))]


@pytest.fixture(scope="module")
def training() -> np.ndarray:
    return smooth(120, seed=0)


def reference_of(space: FeatureSpace, training: np.ndarray, held_out: np.ndarray) -> ReferenceSet:
    features = space.features(training)
    near = find_nearest(space, held_out, features)
    return ReferenceSet(space, features, near.distances, near.relative)


@pytest.fixture(scope="module")
def novelty(spaces, training) -> Novelty:
    return Novelty([reference_of(space, training, smooth(100, seed=1)) for space in spaces], SETS, warn_percentile=1.0)


@pytest.mark.parametrize("change", [np.copy, mirrored, reencoded, lambda x: reencoded(mirrored(x))])
def test_every_copy_of_a_training_picture_gets_a_warning_in_each_space(novelty, training, change):
    found = novelty.check(change(training[COPIED]))
    assert [entry["verdict"] for entry in found] == ["WARN"] * len(COPIED)
    for space in ("reader", "discriminator"):
        places = [(entry[space]["set"], entry[space]["row"]) for entry in found]
        assert places == [("cars", row) for row in range(50)] + [("concept", row) for row in range(50)]
        assert max(entry[space]["percentile"] for entry in found) <= 1.0


def test_other_pictures_pass(novelty):
    found = novelty.check(smooth(100, seed=2))
    assert sum(entry["verdict"] == "WARN" for entry in found) <= 10
    assert max(entry["reader"]["percentile"] for entry in found) > 80
    assert all(entry["reader"]["distance"] > 0 for entry in found)


def test_a_warning_in_one_space_is_enough(spaces, training):
    held_out = smooth(40, seed=1)
    blind = FeatureSpace("blind", "0", lambda pictures: np.ones((len(pictures), 1), np.float32))
    near = ReferenceSet(blind, blind.features(training), np.full(40, -1.0), np.full(40, -1.0))  # nothing is ever near
    both = Novelty([near, reference_of(spaces[0], training, held_out)], SETS, warn_percentile=1.0)
    entry = both.check(training[:1])[0]
    assert entry["verdict"] == "WARN" and entry["blind"]["percentile"] == 100


def test_percentiles_are_shares_of_real_pictures_that_are_nearer(spaces, training):
    held_out = smooth(40, seed=1)
    reference = reference_of(spaces[0], training, held_out)
    near = find_nearest(spaces[0], held_out, reference.training)
    plain = [(reference.real_distances < distance).mean() for distance in near.distances]
    relative = [(reference.real_relative < share).mean() for share in near.relative]
    assert np.allclose(reference.percentiles(near), 100 * np.minimum(plain, relative))
    assert np.allclose(reference.real_percentiles(), reference.percentiles(near))


# ---- finding ----------------------------------------------------------------------------------------------------

PLAIN = FeatureSpace("plain", "0", lambda pictures: pictures.reshape(len(pictures), -1).astype(np.float32))


def test_nearest_is_what_a_plain_search_finds(training):
    others = smooth(20, seed=3)
    near = find_nearest(PLAIN, others, PLAIN.features(training))
    bank = training.reshape(len(training), -1).astype(float)
    for k, picture in enumerate(others):
        apart = [np.linalg.norm(bank - x.ravel().astype(float), axis=1) for x in (picture, picture[:, ::-1])]
        ordered = np.sort(np.minimum(*apart))
        assert near.rows[k] == np.minimum(*apart).argmin()
        assert near.distances[k] == pytest.approx(ordered[0]) and near.relative[k] == pytest.approx(
            ordered[0] / ordered[4]
        )


def test_a_copy_is_at_no_distance(spaces, training):
    for space in spaces:
        near = find_nearest(space, training[:5], space.features(training))
        assert near.distances.max() < 1e-6 and near.relative.max() < 1e-6


def test_relative_distance_finds_a_copy_when_held_out_pictures_are_nearer():
    """Held-out photos of cars in the training set make all distances small."""
    lone = smooth(30, seed=4)
    crowd = np.clip(smooth(1, seed=5).astype(int) + np.arange(-30, 30)[:, None, None, None] // 4, 0, 255)
    training = np.concatenate([lone, crowd.astype(np.uint8)])
    reference = reference_of(PLAIN, training, np.concatenate([training[30:60], smooth(10, seed=6)]))
    copies = find_nearest(PLAIN, reencoded(lone), reference.training)
    assert np.median(copies.distances) > np.median(reference.real_distances)
    assert copies.relative.max() < 0.5


def test_a_copy_of_a_picture_that_occurs_six_times_is_found(training):
    six = np.concatenate([training, np.repeat(training[:1], 5, axis=0)])
    reference = reference_of(PLAIN, six, smooth(40, seed=1))
    assert reference.percentiles(find_nearest(PLAIN, reencoded(training[:1]), reference.training))[0] == 0


def test_the_hash_of_a_space_depends_on_its_weights():
    network = discriminator([32, 32], 4)
    before = discriminator_space(network).sha256
    assert discriminator_space(network).sha256 == before
    next(network.blocks[0].parameters()).data.add_(0.1)
    assert discriminator_space(network).sha256 != before
