"""Classes are matched by name when a run goes on to a set of others."""

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.checkpoints.checkpoint import load_weights, read_meta
from harness.checkpoints.class_tables import class_changes, fit_classes, same_classes
from harness.checkpoints.load import load_run
from harness.config.experiment import Config, finetune_config
from harness.errors import UserError
from harness.native.train import finetune_run, train_run
from tests.harness.tiny_runs import pack_pictures, tiny_config

OLD, NEW = ["audi", "bmw", "kia"], ["bmw", "opel", "audi"]
CONDITIONAL = {"model__g_cond_mtd": "cBN", "model__d_cond_mtd": "PD"}


def test_rows_follow_their_class_and_a_new_one_starts_from_the_mean() -> None:
    table = torch.tensor([[1.0, 0.0], [2.0, 3.0], [6.0, 3.0]])
    weights = {
        "blocks.0.bn1.embed0.weight": table,
        "embedding.weight_orig": table,
        "embedding.weight_u": torch.tensor([0.6, 0.0, 0.8]),
        "embedding.weight_v": torch.tensor([1.0, 2.0, 3.0]),
        "linear2.bias": torch.tensor([1.0, 2.0, 6.0]),
        "linear0.weight": table,
    }
    fitted = fit_classes(weights, OLD, NEW, "a run")
    rows = torch.tensor([[2.0, 3.0], [3.0, 2.0], [1.0, 0.0]])
    for key in ("blocks.0.bn1.embed0.weight", "embedding.weight_orig"):
        assert torch.equal(fitted[key], rows)
    assert torch.equal(fitted["linear2.bias"], torch.tensor([2.0, 3.0, 1.0]))
    assert fitted["embedding.weight_u"].norm() == pytest.approx(1)
    for key in ("embedding.weight_v", "linear0.weight"):
        assert fitted[key] is weights[key]


def test_what_is_new_and_dropped_is_named() -> None:
    assert class_changes(OLD, NEW) == "new: opel; dropped: kia"
    assert class_changes(OLD, OLD[::-1]) == ""
    assert not same_classes(OLD, OLD[::-1]) and same_classes(OLD, list(OLD))


def test_classes_without_names_keep_their_order() -> None:
    weights = {"embedding.weight": torch.eye(3)}
    assert fit_classes(weights, ["0", "1", "2"], NEW, "a run") is weights and class_changes(["0", "1", "2"], NEW) == ""
    with pytest.raises(UserError, match="a run: has 3 classes without names, allowed the 2 of the set"):
        fit_classes(weights, ["0", "1", "2"], NEW[:2], "a run")


# ---- fine-tuning ------------------------------------------------------------------------------------------------


def pack(config: Config, names: list[str], seed: int) -> None:
    pictures = np.random.default_rng(seed).integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)
    for split in ("train", "valid"):
        pack_pictures(config.data.hdf5_path(split), pictures, np.arange(18) % len(names), names)


@pytest.mark.parametrize("names", [NEW, OLD[::-1], OLD[:2]], ids=["another", "other order", "fewer"])
def test_fine_tuning_takes_over_each_class_by_name(
    workplace: Path, no_pictures: None, names: list[str], capsys: pytest.CaptureFixture
) -> None:
    still = {"data": {"set": "other"}, "optim": {"g_lr": 1e-12}}  # the generator stays as it began
    config = tiny_config(**CONDITIONAL, finetune__override=still)
    pack(config, OLD, 0)
    train_run(config, limit_steps=1)
    pack(finetune_config(config), names, 1)
    capsys.readouterr()
    finetune_run(config, limit_steps=1)
    changes = class_changes(OLD, names)
    assert ("classes compared with" in (said := capsys.readouterr().err)) == bool(changes) and changes in said
    before = load_weights(Path("runs/tiny/checkpoints/step-00000001"), "generator")
    after = load_weights(Path("runs/tiny-freezed/checkpoints/step-00000001"), "generator")
    tables = [key for key in before if ".embed0." in key and key.endswith(("weight", "weight_orig"))]
    assert tables and read_meta(Path("runs/tiny-freezed/checkpoints/step-00000001"))["class_names"] == names
    for key in tables:
        for row, name in enumerate(names):
            wanted = before[key][OLD.index(name)] if name in OLD else before[key].mean(0)
            torch.testing.assert_close(after[key][row], wanted)
    # Beside its base, whose labels both are asked for, the tuned run has the base's classes again.
    beside = load_run("tiny-freezed", class_names=load_run("tiny").class_names)
    assert beside.class_names == OLD and beside.num_classes == 3
    assert beside.generator.state_dict()[tables[0]].shape == before[tables[0]].shape
