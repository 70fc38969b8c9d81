"""Evaluation of a run's checkpoint: the figures, what is recorded with them, and what cannot be computed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.checkpoints import sampling
from harness.checkpoints.checkpoint import load_weights, read_meta, save_checkpoint
from harness.checkpoints.load import find_checkpoint, load_checkpoint
from harness.config.experiment import Config, Evaluate, config_to_dict, load_config
from harness.errors import UserError
from harness.features import Featurizer, load_reader
from harness.metrics import evaluate
from harness.metrics.distances import kid
from harness.metrics.evaluate import EvaluationStopped, Evaluator, evaluate_run, evaluation_to_text, sample_with_labels
from harness.metrics.f_beta import f_beta_scores
from harness.metrics.frechet import frechet_distance, statistics_of
from harness.metrics.precision_recall import prdc
from harness.networks.build import build_networks
from harness.storage.hdf5 import open_packed
from harness.storage.rundir import RunDir
from tests.harness.metrics.conftest import TINY
from tests.harness.sabotage import raising
from tests.harness.tiny_runs import BASE, pack_pictures

NAMES = ["fd", "kid", "f8", "f1_8", "precision", "recall", "density", "coverage"]


@pytest.fixture(autouse=True)
def workplace(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(place)
    yield place
    for name in ("metrics.json", "metrics.jsonl"):
        (place / "runs/tiny" / name).unlink(missing_ok=True)


def settings(**changes: Any) -> Evaluate:
    return load_config(BASE, [*TINY, *(f"evaluate.{key}={value}" for key, value in changes.items())]).evaluate


def rows_of(config: Config, split: Any) -> np.ndarray:
    with open_packed(config.data.hdf5_path(split)) as packed:
        return packed.read()


def logits_featurizer(name: str) -> Featurizer:
    """The reader under another name, with four classes."""
    return replace(load_reader().featurizer, name=name, head=lambda features: features[:, :4] * 3)


def test_the_figures_are_those_of_the_drawn_and_the_real_pictures() -> None:
    evaluation = evaluate_run("tiny", settings(count=30, batch_size=7, neighbours=3))
    reader, config = load_reader().featurizer, load_config(BASE, TINY)
    fake = reader(sample_with_labels(find_checkpoint(Path("runs/tiny/checkpoints")), 30)[0])
    real = reader(rows_of(config, "valid"))
    f8, f1_8 = f_beta_scores(real, fake)
    expected = {
        "fd_reader": frechet_distance(statistics_of(real), statistics_of(fake)),
        "kid_reader": kid(fake, real),
        "f8_reader": f8,
        "f1_8_reader": f1_8,
        **{f"{name}_reader": value for name, value in prdc(real, fake, 3).items()},
    }
    assert evaluation["figures"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert list(evaluation["figures"]) == [f"{name}_reader" for name in NAMES] and evaluation["left_out"] == {}


def test_what_the_figures_depend_on_stands_with_them() -> None:
    evaluation = evaluate_run("tiny")
    loaded = load_checkpoint(find_checkpoint(Path("runs/tiny/checkpoints")))
    with open_packed(load_config(BASE, TINY).data.hdf5_path("valid")) as packed:
        sha256 = packed.sha256
    assert {key: evaluation[key] for key in evaluation if key not in ("figures", "seconds", "resizer")} == {
        "run": "tiny",
        "checkpoint": "step-00000002",
        "step": 2,
        "checkpoint_sha256": loaded.sha256,
        "left_out": {},
        "remark": f"a rough figure: 15 pictures are fewer than the {load_reader().featurizer.dim} features",
        "extractor": "reader",
        "extractor_sha256": load_reader().sha256,
        "set": "cars",
        "split": "valid",
        "data_sha256": sha256,
        "real_count": 15,
        "count": 15,  # as many as there are real ones
        "batch_size": 128,
        "neighbours": 5,
        "seed": 0,
        "sample_passes": 0,
        "batch_statistics": "standing, 1 x 64 pictures",
        "device": "cpu",
    }
    rundir = RunDir.existing("tiny")
    assert evaluate_run(rundir, settings(split="train"))["real_count"] == 25
    rows = [json.loads(line)["evaluate"] for line in rundir.metrics_history_path.read_text().splitlines()]
    assert rows[0] == evaluation and [row["split"] for row in rows] == ["valid", "train"]
    assert rundir.read_metrics()["evaluate"] == rows[1]


def test_the_same_again_whatever_the_batch() -> None:
    first, again, other = (evaluate_run("tiny", settings(batch_size=size)) for size in (4, 4, 15))
    assert first["figures"] == again["figures"]
    assert first["figures"] == pytest.approx(other["figures"], rel=1e-3, abs=1e-5)


def test_real_features_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_run("tiny")
    monkeypatch.setattr(Evaluator, "_read_features", lambda *_: pytest.fail("computed again"))
    evaluate_run("tiny", settings(count=20))
    monkeypatch.setattr(evaluate, "load_featurizer", lambda *_: replace(load_reader().featurizer, sha256="other"))
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        evaluate_run("tiny")


@pytest.mark.parametrize(
    ("name", "frechet", "remark"),
    [("inception", "fid", None), ("inception-unverified", "fd_inception-unverified", "not a FID")],
)
def test_only_the_published_network_gives_a_fid(
    monkeypatch: pytest.MonkeyPatch, name: str, frechet: str, remark: str | None
) -> None:
    monkeypatch.setattr(evaluate, "load_featurizer", lambda *_: logits_featurizer(name))
    evaluation = evaluate_run("tiny", settings(features="inception"))
    assert list(evaluation["figures"])[:3] == [frechet, f"kid_{name}", f"is_{name}"]
    assert 1 < evaluation["figures"][f"is_{name}"] <= 4
    assert ("not a FID" in (evaluation["remark"] or "")) == (remark is not None)
    assert (remark or "fid") in evaluation_to_text(evaluation)


def test_too_few_pictures_leave_out_what_needs_more() -> None:
    evaluation = evaluate_run("tiny", settings(count=4))
    assert set(evaluation["figures"]) == {"fd_reader", "kid_reader"}
    reasons = evaluation["left_out"]
    assert "allowed 20 or more" in reasons["f8_reader"] and "allowed fewer than there are" in reasons["recall_reader"]
    text = evaluation_to_text(evaluation)
    assert (
        "4 drawn pictures compared with 15 real ones" in text and "left out: neighbours: found 5 for 15 and 4" in text
    )
    alone = evaluate_run("tiny", settings(count=1))
    assert alone["figures"] == {} and len(alone["left_out"]) == len(NAMES)


def test_one_real_picture_is_no_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = load_config(BASE, [*TINY, "data.set=single"])
    pack_pictures(config.data.hdf5_path("valid"), np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1), ["cars"])
    monkeypatch.setattr(evaluate, "load_featurizer", lambda *_: logits_featurizer("inception"))
    loaded = load_checkpoint(find_checkpoint(Path("runs/tiny/checkpoints")))
    evaluation = Evaluator(config.data, settings(count=10), torch.device("cpu")).evaluate(loaded)
    assert set(evaluation["figures"]) == {"is_inception"}
    assert all("N >= 2" in reason for reason in evaluation["left_out"].values())


def test_a_generator_that_draws_one_picture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sampling.latents_to_pictures
    monkeypatch.setattr(sampling, "latents_to_pictures", lambda *words: np.zeros_like(real(*words)))
    evaluation = evaluate_run("tiny")
    assert set(evaluation["figures"]) == {"kid_reader"}
    assert "has the generator collapsed?" in evaluation["left_out"]["fd_reader"]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="allowed tiny"):
        evaluate_run("absent")
    with pytest.raises(UserError, match=r"found no .*step-00000009, allowed best and step-00000002"):
        evaluate_run("tiny", checkpoint="step-00000009")
    for name in ("..", "../checkpoints", "/etc", ""):
        with pytest.raises(UserError, match="found no|allowed best"):
            evaluate_run("tiny", checkpoint=name)
    with pytest.raises(UserError, match="not evaluated during training"):
        evaluate_run("tiny", checkpoint="best")
    valid = load_config(BASE, TINY).data.hdf5_path("valid")
    valid.rename(tmp_path / "away")
    with pytest.raises(UserError, match="data/hdf5/cars.*valid.hdf5: not there.*make dataset"):
        evaluate_run("tiny")
    (tmp_path / "away").rename(valid)
    assert not Path("runs/tiny/metrics.json").exists()


def test_a_generator_alone_is_enough(tmp_path: Path) -> None:
    folder = find_checkpoint(Path("runs/tiny/checkpoints"))
    weights = {"generator": load_weights(folder, "generator_ema")}
    save_checkpoint(tmp_path / "step-00000002", weights, {}, read_meta(folder))
    alone = load_checkpoint(tmp_path / "step-00000002")
    evaluator = Evaluator(load_config(BASE, TINY).data, settings(), torch.device("cpu"))
    assert evaluator.evaluate(alone)["figures"] == evaluator.evaluate(load_checkpoint(folder))["figures"]
    with pytest.raises(UserError, match="has no discriminator"):
        _ = alone.discriminator


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the run was trained on")
@pytest.mark.parametrize("changes", [{"device": "cuda"}, {"device": "auto", "precision": "tf32"}])
def test_a_run_of_a_gpu_is_evaluated_without_one(tmp_path: Path, capsys, changes: dict[str, str]) -> None:
    folder = find_checkpoint(Path("runs/tiny/checkpoints"))
    meta, weights = read_meta(folder), {"generator": load_weights(folder, "generator_ema")}
    meta["config"]["train"] |= changes
    save_checkpoint(tmp_path / "step-00000002", weights, {}, meta)
    assert next(load_checkpoint(tmp_path / "step-00000002").generator.parameters()).device.type == "cpu"
    assert "using the CPU" in capsys.readouterr().err


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fill = raising(torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr(sampling, "latents_to_pictures", fill)
    with pytest.raises(UserError, match="out of memory on cpu with 8 pictures .* --set evaluate.batch_size=4"):
        evaluate_run("tiny", settings(batch_size=8))


def test_classes_are_drawn_too(tmp_path: Path) -> None:
    """No training: fresh networks of three classes, whose every batch gets its own part of the labels."""
    config = load_config(BASE, [*TINY, "model.g_cond_mtd=cBN", "model.d_cond_mtd=PD"])
    generator, _ = build_networks(config, 3, torch.device("cpu"))
    meta = {"step": 1, "config": config_to_dict(config), "num_classes": 3}
    save_checkpoint(tmp_path / "step-00000001", {"generator": generator.state_dict()}, {}, meta)
    evaluator = Evaluator(config.data, settings(count=30, batch_size=8), torch.device("cpu"))
    evaluation = evaluator.evaluate(load_checkpoint(tmp_path / "step-00000001"))
    fake = load_reader().featurizer(sample_with_labels(tmp_path / "step-00000001", 30)[0])
    real = load_reader().featurizer(rows_of(config, "valid"))
    assert evaluation["figures"]["kid_reader"] == pytest.approx(kid(fake, real), rel=1e-3)


def test_it_stops_when_told_and_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_checkpoint(find_checkpoint(Path("runs/tiny/checkpoints")))
    evaluator = Evaluator(load_config(BASE, TINY).data, settings(), torch.device("cpu"))
    seen: list[str] = []
    real = sampling.latents_to_pictures

    def watched(*words: Any) -> np.ndarray:
        seen.append(torch.get_float32_matmul_precision())
        return real(*words)

    monkeypatch.setattr(sampling, "latents_to_pictures", watched)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(EvaluationStopped):
            evaluator.evaluate(loaded, stopped=lambda: bool(seen))
        assert seen == ["highest"] and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
