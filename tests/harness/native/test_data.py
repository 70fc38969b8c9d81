"""Batches: every picture once an epoch, in range, the same resident or lazy and for any number of processes."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.errors import UserError
from harness.images.tensors import pictures_to_tensor, tensor_to_pictures
from harness.native import data
from harness.native.data import PictureOrder, PictureSource
from harness.storage.hdf5 import open_packed
from tests.harness.tiny_runs import COUNT

PATH = Path("data/hdf5/tiny/custom_32_train.hdf5")
CPU = torch.device("cpu")


@contextmanager
def source(where: str, *, flip: bool = True, share: slice = slice(None)) -> Iterator[PictureSource]:
    with closing(PictureSource(open_packed(PATH), PictureOrder(3, COUNT, 6), flip, CPU, where, share)) as made:
        yield made


def test_pictures_come_back_as_they_were() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, 3)
    tensor = pictures_to_tensor(levels)
    assert tensor.shape == (1, 3, 16, 16) and tensor.dtype == torch.float32
    assert tensor.min() == -1 and tensor.max() == 1 and tensor.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(tensor_to_pictures(tensor), levels.numpy())
    assert tensor_to_pictures(torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1)).ravel().tolist() == [0, 255]


@pytest.mark.parametrize("batch_size", [6, 40, 90])
def test_every_picture_once_an_epoch(batch_size: int) -> None:
    order = PictureOrder(0, COUNT, batch_size)
    rows = np.concatenate([order.rows(k) for k in range(4 * COUNT // batch_size + 1)])
    epochs = rows[: len(rows) // COUNT * COUNT].reshape(-1, COUNT)
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(PictureOrder(0, COUNT, batch_size).rows(3), order.rows(3))  # asked for out of turn
    assert not np.array_equal(PictureOrder(1, COUNT, batch_size).rows(0), order.rows(0))


def test_a_batch_is_its_rows(workplace: Path) -> None:
    with source("resident") as made, open_packed(PATH) as packed:
        assert 40 < np.concatenate([made.order.flips(k) for k in range(20)]).sum() < 80
        for k in (0, 5, 6, 13):
            x, labels = made.batch(k)
            assert x.dtype == torch.float32 and x.shape == (6, 3, 32, 32) and labels.dtype == torch.int64
            expected = packed.read(made.order.rows(k))
            mirrored = [p[:, ::-1] if flip else p for p, flip in zip(expected, made.order.flips(k), strict=True)]
            assert np.array_equal(tensor_to_pictures(x), np.stack(mirrored))
            assert np.array_equal(labels.numpy(), packed.labels[made.order.rows(k)])


def test_resident_and_lazy_and_shares_agree(workplace: Path) -> None:
    with (
        source("resident") as resident,
        source("lazy") as lazy,
        source("resident", share=slice(0, 3)) as left,
        source("lazy", share=slice(3, 6)) as right,
    ):
        assert resident.resident and not lazy.resident
        for k in (0, 1, 2, 9, 4, 5):  # in turn, and with jumps
            x, labels = resident.batch(k)
            same = lazy.batch(k)
            assert torch.equal(x, same[0]) and torch.equal(labels, same[1])
            parts = left.batch(k), right.batch(k)
            assert torch.equal(x, torch.cat([part[0] for part in parts]))
            assert torch.equal(labels, torch.cat([part[1] for part in parts]))


def test_auto_stays_lazy_where_memory_is_short(workplace: Path, monkeypatch) -> None:
    size_bytes = COUNT * 32 * 32 * 3
    for factor, resident in ((2.0, True), (1.5, False)):
        monkeypatch.setattr(data, "free_bytes", lambda device, factor=factor: factor * size_bytes)
        with source("auto") as made:
            assert made.resident is resident


def test_without_flips_nothing_is_mirrored(workplace: Path) -> None:
    with source("resident", flip=False) as made, open_packed(PATH) as packed:
        assert np.array_equal(tensor_to_pictures(made.batch(2)[0]), packed.read(made.order.rows(2)))


@pytest.mark.parametrize("where", ["resident", "lazy"])
def test_a_damaged_picture_is_never_trained_on(workplace: Path, where: str) -> None:
    content = bytearray(PATH.read_bytes())
    with open_packed(PATH) as packed:
        picture = packed.read(np.array([11]))[0].transpose(2, 0, 1).tobytes()
    content[content.index(picture) + 100] ^= 4
    PATH.write_bytes(content)
    with pytest.raises(UserError, match="rows 11: damaged"), source(where) as made:
        for k in range(COUNT // 6 + 1):
            made.batch(k)
