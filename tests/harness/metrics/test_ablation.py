"""The ablation: equal runs but for the two switches, measured at marks, and not done twice."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from datasets.procedural.sets import render_many
from harness.config import Config, config_differences, config_to_dict, load_config
from harness.errors import UserError
from harness.hdf5 import PackedWriter, open_packed
from harness.metrics import ablation

BASE = Path(__file__).resolve().parents[3] / "configs" / "base.yaml"
TINY = (
    "data.img_size=32", "model.g_conv_dim=8", "model.d_conv_dim=8", "model.z_dim=16", "optim.batch_size=4",
    "optim.d_updates_per_step=1", "train.sample_count=4", "train.precision=fp32", "loss.lecam_ema_start_iter=1",
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config whose sets are packed in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    config = load_config(BASE, TINY)
    pictures = [picture for _, _, picture in render_many("ordinary", 30, 4, 32)]
    parts: tuple[tuple[Literal["train", "valid"], Any], ...] = (("train", pictures[:24]), ("valid", pictures[24:]))
    for split, rows in parts:
        with PackedWriter(config.data.hdf5_path(split), 32, 32, ["cars"], {}) as writer:
            for picture in rows:
                writer.append(picture, 0)
    return config


def test_arms_differ_in_their_switches_alone(config: Config) -> None:
    content = {arm: config_to_dict(ablation.arm_config(config, arm, 1, 40)) for arm in ablation.ARMS}
    differences = {key for arm in content for key, _, _ in config_differences(content["both"], content[arm])}
    assert differences == {"name", "augment.apply_diffaug", "loss.apply_lecam"}
    assert content["neither"]["seed"] == config.seed + 1 and content["neither"]["optim"]["total_steps"] == 40


def test_held_out_pictures_are_all_that_is_not_trained_on(config: Config, tmp_path: Path) -> None:
    ablation.pack_pictures(config, tmp_path / "work", 10)
    with open_packed(config.data.hdf5_path("train")) as train, open_packed(config.data.hdf5_path("valid")) as valid:
        everything = {row.tobytes() for packed in (train, valid) for row in packed.row_sha256}
        first = [row.tobytes() for row in train.row_sha256[:10]]
    sets = [tmp_path / "work" / config.data.hdf5_path(split) for split in ("train", "valid")]
    with open_packed(sets[0]) as few, open_packed(sets[1]) as rest:
        assert [row.tobytes() for row in few.row_sha256] == first
        assert {row.tobytes() for row in rest.row_sha256} == everything - set(first)
    with pytest.raises(UserError, match="allowed up to the 24 rows"):
        ablation.pack_pictures(config, tmp_path / "work", 25)


def test_a_run_is_measured_at_its_marks_and_not_done_twice(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "SAMPLES", 8)
    work = tmp_path / "work"
    facts = ablation.pack_pictures(config, work, 10)
    content = config_to_dict(ablation.arm_config(config, "both", 0, 2))
    job = (content, str(work), [1, 2], {"arm": "both", "seed": 0, **facts})
    row = ablation._train_one(job)
    assert [mark["step"] for mark in row["marks"]] == [1, 2] and all(np.isfinite(m["kid"]) for m in row["marks"])
    monkeypatch.setattr("harness.native.train.train_run", lambda *a, **k: pytest.fail("trained again"))
    assert ablation._train_one(job) == row
    with pytest.raises(pytest.fail.Exception):  # other pictures: what was measured does not count
        ablation._train_one((content, str(work), [1, 2], {**job[3], "data_sha256": "other"}))


def test_the_table_has_means_over_seeds_and_its_command() -> None:
    def row(arm: str, seed: int, kids: tuple[float, float]) -> dict:
        marks = [
            {"step": k + 1, "kid": kid, "kid_of_training_pictures": 0.001, "accepted": 0.5}
            for k, kid in enumerate(kids)
        ]
        return {"arm": arm, "seed": seed, "marks": marks, "key": {"pictures": 500}}

    rows = [
        row("neither", 1, (0.4, 0.3)),
        row("both", 0, (0.2, 0.1)),
        row("neither", 0, (0.4, 0.1)),
        row("both", 1, (0.4, 0.1)),
    ]
    text = ablation.rows_to_markdown(rows, "python -m x --seeds 2")
    assert "| both | 0.300 ± 0.100 | 0.100 ± 0.000 | 50% | 0.100, 0.100 |" in text
    assert "| neither | 0.400 ± 0.000 | 0.200 ± 0.100 | 50% | 0.100, 0.300 |" in text
    assert text.index("| both") < text.index("| neither") and "`python -m x --seeds 2`" in text
    assert "500 training pictures" in text and "have 0.0010" in text
