"""Evaluation rows: the valid set, or a seeded sample of the training set, which is reported."""

from pathlib import Path

import numpy as np
import pytest

from harness.config.experiment import Data, load_config
from harness.storage.hdf5 import open_packed
from harness.storage.splits import (
    NEEDS_HELD_OUT,
    PackedRows,
    annotate_figures,
    open_evaluation_rows,
    open_training_rows,
)
from tests.harness.tiny_runs import BASE, pack_pictures
from tests.refusals import refused


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pictures(count: int) -> np.ndarray:
    """Each of one grey, another one each."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 32, 32, 3))


def pack(split: str, packed: np.ndarray, valid_fraction: float = 0.0) -> Data:
    data = load_config(BASE, ["data.img_size=32", f"data.valid_fraction={valid_fraction}"]).data
    pack_pictures(data.hdf5_path(split), packed, np.arange(len(packed)) % 2)  # type: ignore[arg-type]
    return data


def greys(rows: PackedRows) -> list[int]:
    with rows:
        return rows.read()[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("valid_fraction", [0.1, 0.0])  # 0.0: an official split, as that of cifar10
def test_a_set_that_keeps_pictures_aside_is_measured_on_these(valid_fraction: float) -> None:
    pack("train", pictures(30), valid_fraction)
    data = pack("valid", pictures(50)[30:], valid_fraction)
    for opened, split in ((open_training_rows(data), "train"), (open_evaluation_rows(data), "valid")):
        with open_packed(data.hdf5_path(split)) as packed:  # type: ignore[arg-type]
            assert opened.sha256 == packed.sha256 and (opened.labels == packed.labels).all()
            assert opened.row_sha256(3) == packed.row_sha256[3].tobytes().hex()
        assert (opened.split, opened.note, opened.count) == (split, "", packed.count)
    assert greys(open_evaluation_rows(data)) == list(range(30, 50))
    assert greys(open_evaluation_rows(data, "train")) == list(range(30))


def test_one_that_keeps_none_is_measured_on_a_twentieth_of_its_training_pictures() -> None:
    data = pack("train", pictures(101))
    train, sample = open_training_rows(data), open_evaluation_rows(data)
    assert (sample.split, sample.count) == ("train", 6)
    assert sample.note == "6 of the 101 of cars"
    assert sorted([*train.rows.tolist(), *sample.rows.tolist()]) == list(range(101))
    assert sample.rows.tolist() == sorted(sample.rows.tolist()) and np.ptp(sample.rows) > 10
    assert greys(sample) == sample.rows.tolist() and (sample.labels == sample.rows % 2).all()
    with open_packed(data.hdf5_path("train")) as packed:
        assert len({packed.sha256, train.sha256, sample.sha256}) == 3
        assert sample.row_sha256(2) == packed.row_sha256[sample.rows[2]].tobytes().hex()
    with open_evaluation_rows(data) as again:
        assert again.sha256 == sample.sha256 and again.read(np.array([5, 1])).shape == (2, 32, 32, 3)
    assert greys(open_evaluation_rows(data, "train")) == list(range(101))  # all of them, where they are asked for


def test_the_sample_follows_from_the_content() -> None:
    first = greys(open_evaluation_rows(pack("train", pictures(60))))
    backwards = greys(open_evaluation_rows(pack("train", pictures(60)[::-1])))
    assert sorted(backwards) == first
    twice = greys(open_evaluation_rows(pack("train", np.repeat(pictures(60), 2, axis=0))))
    assert sorted(twice) == sorted([*first, *first])  # copies are together


def test_sets_that_cannot_be_measured_on_are_refused() -> None:
    data = pack("train", pictures(30), valid_fraction=0.1)
    with refused("custom_32_valid.hdf5: not there", "make dataset"):
        open_evaluation_rows(data)
    with refused("found 2 pictures, allowed 3 or more"):
        open_evaluation_rows(pack("train", pictures(2)))
    assert open_training_rows(pack("train", pictures(3))).count == 1


def test_what_training_pictures_cannot_tell_is_left_out_with_the_reason() -> None:
    figures = {"error": 0.5, "pictures": 3}
    assert annotate_figures(figures, [""], ["error"]) is figures
    sample = {"measured_on": "a seeded sample of the training pictures: 3 of the 40 of cars, 2 of the 9 of concept"}
    notes = ["3 of the 40 of cars", "", "2 of the 9 of concept"]
    assert annotate_figures(figures, notes) == {**figures, **sample}
    assert annotate_figures(figures, notes, ["error", "more"]) == {
        "pictures": 3, **sample, "left_out": {"error": NEEDS_HELD_OUT, "more": NEEDS_HELD_OUT},
    }  # fmt: skip
