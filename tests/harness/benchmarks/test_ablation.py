"""The ablation: runs differ only in the arm's switches, are measured at marks, and are not repeated."""

from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest

from datasets.procedural.sets import render_many
from harness.benchmarks import ablation
from harness.benchmarks.ablation import arm_changes, default_arms, rows_to_markdown
from harness.config.experiment import Config, config_differences, config_to_dict, load_config
from harness.errors import UserError
from harness.storage.hdf5 import open_packed
from tests.harness.tiny_runs import BASE, pack_cars

TINY = (
    "data.img_size=32", "model.g_conv_dim=8", "model.d_conv_dim=8", "model.z_dim=16", "optim.batch_size=4",
    "optim.d_updates_per_step=1", "train.sample_count=4", "train.precision=fp32", "loss.lecam_ema_start_iter=1",
)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config whose sets are packed in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    config = load_config(BASE, TINY)
    pack_cars(config, np.stack([picture for _, _, picture in render_many("ordinary", 30, 4, 32)]), 24)
    return config


def test_of_a_set_that_keeps_none_aside_the_arms_do(config: Config) -> None:
    config.data.hdf5_path("valid").unlink()
    config = config.model_copy(update={"data": config.data.model_copy(update={"valid_fraction": 0.0})})
    assert ablation.pack_pictures(config, Path("work"), 20)["pictures"] == 20
    with open_packed(config.data.hdf5_path("train")) as packed:
        whole = {row.tobytes() for row in packed.row_sha256}
    with chdir("work"):
        parts = []
        for split in ("train", "valid"):
            with open_packed(config.data.hdf5_path(split)) as packed:
                parts.append({row.tobytes() for row in packed.row_sha256})
    assert [len(part) for part in parts] == [20, 4] and not parts[0] & parts[1] and parts[0] | parts[1] == whole


def test_arms_differ_in_their_switches_alone(config: Config) -> None:
    def differences(arm: str) -> set[str]:
        whole, other = (config_to_dict(ablation.arm_config(config, name, 1, 40)) for name in ("whole", arm))
        assert other["seed"] == config.seed + 1 and other["optim"]["total_steps"] == 40
        return {key for key, _, _ in config_differences(whole, other)} - {"name"}

    arms = default_arms(config)
    assert arms[0] == "whole" and {"without DiffAugment", "without LeCam", "without EMA"} < set(arms)
    assert "without R1" not in arms  # it has none
    assert differences("without DiffAugment + LeCam") == {"augment.apply_diffaug", "loss.apply_lecam"}
    assert differences("without two rates") == {"optim.d_lr"}
    assert differences("with R1") == {"loss.apply_r1_reg"}
    for arm in arms[1:]:
        assert differences(arm), arm


@pytest.mark.parametrize(
    ("arm", "text"),
    [
        ("without R1", "base does not have it"),
        ("with EMA", "base has it"),
        ("without luck", "allowed whole, or with or without and any of spectral norm of D"),
        ("nothing", "allowed whole"),
    ],
)
def test_arms_that_change_nothing_or_are_none(config: Config, arm: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        arm_changes(config, arm)


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
    content = config_to_dict(ablation.arm_config(config, "whole", 0, 2))
    job = (content, str(work), [1, 2], {"arm": "whole", "seed": 0, **facts})
    row = ablation._train_one(job)
    assert [mark["step"] for mark in row["marks"]] == [1, 2] and all(np.isfinite(m["kid"]) for m in row["marks"])
    monkeypatch.setattr("harness.native.train.train_run", lambda *a, **k: pytest.fail("trained again"))
    assert ablation._train_one(job) == row
    result = work / "results/whole-0.json"
    result.write_text(result.read_text().replace('"numerics": "fast"', '"d_call": "concat"'))
    assert ablation._train_one(job)["marks"] == row["marks"]
    with pytest.raises(pytest.fail.Exception):  # other pictures: what was measured does not count
        ablation._train_one((content, str(work), [1, 2], {**job[3], "data_sha256": "other"}))


def test_the_table_has_means_over_seeds_and_its_command() -> None:
    def row(arm: str, seed: int, kids: tuple[float, float], **more: float) -> dict:
        marks = [
            {"step": k + 1, "kid": kid, "kid_of_training_pictures": 0.001, "accepted": 0.5, "diversity": 0.9, **more}
            for k, kid in enumerate(kids)
        ]
        return {"arm": arm, "seed": seed, "marks": marks, "key": {"pictures": 500}}

    rows = [row("b", 1, (0.4, 0.3)), row("whole", 0, (0.2, 0.1)), row("b", 0, (0.4, 0.1)), row("whole", 1, (0.4, 0.1))]
    text = rows_to_markdown(rows, ["whole", "b"], 8, "python -m x --seeds 2")
    assert "| whole | 0.300 ± 0.100 | 0.100 ± 0.000 | 0.90 ± 0.00 | 50% ± 0% | 0.100, 0.100 |" in text
    assert "| b | 0.400 ± 0.000 | 0.200 ± 0.100 | 0.90 ± 0.00 | 50% ± 0% | 0.100, 0.300 |" in text
    assert text.index("| whole") < text.index("| b |") and "`python -m x --seeds 2`" in text
    assert "500 training pictures" in text and "KID of 0.0010" in text and "brand" not in text.lower()
    brands = [row("whole", seed, (0.2, 0.1), brand=0.5 + seed / 4, real_brand=0.98) for seed in (0, 1)]
    text = rows_to_markdown(brands, ["whole"], 8, "x")
    assert "| brand accuracy |" in text and "0.625 ± 0.125" in text and "held-out pictures is 0.980" in text


def test_diversity_with_classes_is_within_them() -> None:
    features = np.array([[0.0], [2.0], [100.0], [104.0]])
    assert ablation._spread(features, np.array([0, 0, 1, 1])) == pytest.approx(3)
    assert ablation._spread(features, None) > 60
