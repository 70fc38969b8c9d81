"""Fingerprints equal what Pillow and SciPy compute, and do not depend on the other pictures of a batch."""

import numpy as np
from PIL import Image
from scipy.fft import dctn

from datasets.scan.fingerprints import fingerprint, luma_range, to_colours, to_greys
from datasets.scan.scan import make_thumb
from tests.datasets.stand_in import noise_picture

THUMBS = np.stack([make_thumb(Image.fromarray(noise_picture(seed, 150, 200)), (200, 150)) for seed in range(40)])


def test_hashes_are_perceptual_hashes():
    """The 8 x 8 lowest frequencies of a DCT, each compared with their median, as `imagehash.phash` does."""
    found = fingerprint(THUMBS)
    for k, thumb in enumerate(map(Image.fromarray, THUMBS)):
        both = (found.hashes[k], thumb), (found.mirrored[k], thumb.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        for ours, picture in both:
            low = np.asarray(dctn(np.asarray(picture.convert("L").reduce(2), np.float64)))[:8, :8]
            assert int(ours).to_bytes(8, "big", signed=True) == np.packbits(low > np.median(low)).tobytes()


def test_greys_and_colours_are_pillow_s():
    noise = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    for thumbs in (noise, THUMBS, np.full_like(noise, 255), np.zeros_like(noise)):
        greys, colours = to_greys(thumbs), to_colours(thumbs)
        for k, image in enumerate(map(Image.fromarray, thumbs)):
            assert np.array_equal(greys[k], np.asarray(image.convert("L").reduce(2)))
            assert np.array_equal(colours[k], np.asarray(image.reduce(8)))


def test_a_fingerprint_does_not_depend_on_its_batch():
    whole = fingerprint(THUMBS)
    for k in (0, 17, 39):
        alone = fingerprint(THUMBS[k : k + 1])
        assert (alone.hashes[0], alone.mirrored[0]) == (whole.hashes[k], whole.mirrored[k])
        assert np.array_equal(alone.colours[0], whole.colours[k]) and np.array_equal(alone.luma[0], whole.luma[k])


def test_luma_range_leaves_out_2_percent_at_each_end():
    levels = np.repeat(np.arange(100, dtype=np.uint8), 10).reshape(20, 50)  # ten pixels of each, so 2 % are two levels
    mixed = np.random.default_rng(0).permuted(levels)
    assert luma_range(np.stack([mixed, np.full_like(mixed, 23)])).tolist() == [[2, 97], [23, 23]]
