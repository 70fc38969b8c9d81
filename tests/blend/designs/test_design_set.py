"""A set of designs on disk carries its measures and is replaced as a whole."""

import json
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

import blend.designs.design_set
from blend.designs.design_set import Design, is_made, read_designs, save_designs
from blend.generator.dial import DialPosition

REQUEST = {"kind": "pairs", "generators": {"base": "a", "tuned": "b"}, "range": (0.0, 1.0, 2)}


def some_designs(count: int = 3):
    designs = [Design(DialPosition(0.5, 0.4), 0.5, f"o{k}.jpg", "c.jpg") for k in range(count)]
    pictures = np.random.default_rng(0).integers(0, 255, (count, 4, 6, 3), dtype=np.uint8)
    measures = [{"futurism": 10.0 * k, "identity": 90.0, "novelty": {"verdict": "PASS"}} for k in range(count)]
    return designs, pictures, measures


def test_designs_carry_their_measures(tmp_path):
    folder = tmp_path / "blends" / "some"
    designs, pictures, measures = some_designs()
    rows = save_designs(folder, REQUEST, designs, pictures, measures)
    assert read_designs(folder) == rows and is_made(folder, REQUEST)
    assert rows[2]["futurism"] == 20.0 and rows[2]["ordinary"] == "o2.jpg" and rows[2]["latent_weight"] == 0.5
    for row, picture in zip(rows, pictures, strict=True):
        with Image.open(folder / row["file"]) as image:
            assert (np.asarray(image) == picture).all()
            inside = json.loads(image.info["carforge"])
        assert {key: inside[key] for key in row} == row and inside["generators"] == {"base": "a", "tuned": "b"}
    assert (folder / "grid.png").is_file()


def test_another_request_is_not_taken_for_made(tmp_path):
    folder = tmp_path / "some"
    assert not is_made(folder, REQUEST)
    save_designs(folder, REQUEST, *some_designs())
    assert not is_made(folder, {**REQUEST, "kind": "seeds"})
    (folder / "request.json").write_text("{")
    assert not is_made(folder, REQUEST)


def test_a_failure_leaves_the_older_set(tmp_path, monkeypatch):
    folder = tmp_path / "some"
    save_designs(folder, REQUEST, *some_designs())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(blend.designs.design_set, "save_png", full)
    with pytest.raises(OSError, match="No space"):
        save_designs(folder, {"kind": "other"}, *some_designs(2))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    assert len(save_designs(folder, {"kind": "other"}, *some_designs(2))) == 2
    assert not (folder / "0002.png").exists() and [path.name for path in tmp_path.iterdir()] == ["some"]
