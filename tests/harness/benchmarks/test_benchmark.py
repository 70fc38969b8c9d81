"""`make benchmark`: finds StudioGAN's config, trains it with each engine from the same weights, writes the table."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.benchmarks import benchmark
from harness.benchmarks.benchmark import find_bench, make_plan, run_benchmark
from harness.benchmarks.table import benchmark_table, read_published
from harness.checkpoints.checkpoint import list_checkpoints, load_weights
from harness.config.experiment import load_config
from harness.errors import UserError
from harness.features import Featurizer, inception
from harness.metrics import class_net, evaluate
from harness.native.train import train_run
from harness.studiogan.dialects.convert import config_to_text
from tests.harness.sabotage import raising
from tests.harness.tiny_runs import BASE, pack_pictures
from tests.refusals import refusal_of

SMALL = ["model.z_dim=8", "model.g_conv_dim=4", "model.d_conv_dim=4", "optim.batch_size=4", "optim.total_steps=6"]
SMALL += ["model.g_cond_mtd=cBN", "model.d_cond_mtd=PD", "optim.d_updates_per_step=2", "data.img_size=32"]
SMALL += ["loss.apply_lecam=false", "augment.apply_diffaug=false", "model.apply_g_ema=false", "optim.beta1=0.5"]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A stand-in for StudioGAN: its configurations alone, small ones. Everything is written below tmp_path."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "stand-in"
    for version, suffix, dataset in (("0.2.0", ".json", "cifar10"), ("0.4.0", ".yaml", "CIFAR10")):
        config = load_config(BASE, [*SMALL, f"studiogan.version='{version}'"])
        text = config_to_text(config, 10)[1].replace("custom", dataset).replace("name: cars", "name: CIFAR10")
        for name in ("SNGAN", "SAGAN", "BigGAN-Deep"):
            path = home / "src/configs/CIFAR10" / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    monkeypatch.setattr(benchmark, "find_checkout", lambda version: home)
    return home


@pytest.fixture
def packed(checkout) -> None:
    """A small set in the place of CIFAR-10's."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 24), ("valid", 22)):
        pictures = draws.integers(0, 256, (count, 32, 32, 3), np.uint8)
        path = Path(f"data/hdf5/cifar10/custom_32_{split}.hdf5")
        pack_pictures(path, pictures, np.arange(count) % 10, "abcdefghij")


@pytest.fixture
def engines(monkeypatch) -> list[tuple[str, int]]:
    """The native engine stands in for StudioGAN's; gives (engine, step of the newest checkpoint) of each start."""
    monkeypatch.setattr(class_net, "MIN_UPDATES", 10)  # noise has no classes to learn
    started: list[tuple[str, int]] = []

    def find_trainer(engine: str) -> Any:
        def train(config: Any, **options: Any) -> Path:
            assert config.engine == engine
            assert options["limit_steps"] % config.train.log_every_steps == 0  # else StudioGAN's log tells no time
            folders = list_checkpoints(Path("runs") / config.name / "checkpoints")
            started.append((engine, int(folders[0].name.removeprefix("step-"))))
            return train_run(config, **options)

        return train

    monkeypatch.setattr(benchmark, "find_trainer", find_trainer)
    monkeypatch.setattr(benchmark, "find_python", lambda: Path("python"))
    monkeypatch.setattr(benchmark, "check_environment", lambda python: None)
    return started


@pytest.fixture
def no_inception(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("CARFORGE_INCEPTION", raising=False)
    monkeypatch.setenv("CARFORGE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(inception, "WEIGHTS", replace(inception.WEIGHTS, url="http://127.0.0.1:9/absent.pth"))


def cells(table: str, title: str) -> list[str]:
    return next(re.split(r"\s{2,}", line)[1:] for line in table.splitlines() if line.startswith(title + "  "))


# ---- what is run ----


def test_the_plan_is_studiogans_own_config(checkout):
    plan = make_plan("cifar10/sngan", "both", ["optim.total_steps=4"])
    assert (plan.bench, plan.file) == ("CIFAR10/SNGAN", "src/configs/CIFAR10/SNGAN.json")
    assert list(plan.configs) == ["native", "studiogan"]
    for engine, config in plan.configs.items():
        assert (config.name, config.engine) == (f"bench-cifar10-sngan-{engine}", engine)
        assert (config.data.source, config.data.set, config.data.src) == ("cifar10", "cifar10", None)
        assert (config.optim.beta1, config.optim.total_steps, config.model.g_conv_dim) == (0.5, 4, 4)
        assert (config.model.g_cond_mtd, config.train.numerics, config.train.precision) == ("cBN", "studiogan", "fp32")
        assert (config.evaluate.split, config.evaluate.count) == ("valid", 0)  # README of 0.2.0: test pictures
    assert not Path("runs").exists()
    written = plan.write()
    assert written == Path("runs/bench-cifar10-sngan/plan.yaml") and load_config(written).data.source == "cifar10"


def test_the_other_version_has_folders_of_its_own(checkout):
    for plan in (
        make_plan("CIFAR10/SNGAN", "native", version="0.4.0"),
        make_plan("CIFAR10/SNGAN.yaml", "native", ["studiogan.version='0.4.0'"]),
    ):
        config = plan.configs["native"]
        assert plan.file == "src/configs/CIFAR10/SNGAN.yaml"
        assert (config.name, config.evaluate.split) == ("bench-cifar10-sngan-0.4.0-native", "train")
        assert config.studiogan.version == "0.4.0" and config.data.source == "cifar10"


@pytest.mark.parametrize(
    ("bench", "engine", "more", "said"),
    [
        ("CIFAR10/SNGAM", "native", {}, "similar ones: CIFAR10/SNGAN, CIFAR10/SAGAN"),
        ("", "native", {}, "BENCH: found nothing"),
        ("../../CIFAR10/SNGAN", "native", {}, "BENCH: found ../../CIFAR10/SNGAN"),
        ("CIFAR10/SNGAN", "torch", {}, "ENGINE: found 'torch', allowed native, studiogan, both"),
        ("CIFAR10/SNGAN", "both", {"version": "0.3.0"}, "VERSION: found '0.3.0'"),
        ("CIFAR10/SNGAN", "both", {"overrides": ["name=mine"]}, "OVERRIDE: found name"),
        ("CIFAR10/SNGAN", "both", {"overrides": ["engine=native"]}, "OVERRIDE: found engine"),
    ],
)
def test_a_mistake_is_one_line(checkout, bench, engine, more, said):
    assert said in refusal_of(make_plan, bench, engine, **more) and not Path("runs").exists()


def test_no_configuration_at_all(tmp_path):
    with pytest.raises(UserError, match="similar ones: none, .* has no configuration"):
        find_bench("CIFAR10/SNGAN", tmp_path, "0.2.0")


def test_a_feature_that_is_not_covered_is_named(checkout):
    path = checkout / "src/configs/CIFAR10/SNGAN.json"
    path.write_text(path.read_text().replace('"ProjGAN"', '"ContraGAN"'))
    with pytest.raises(UserError, match="ContraGAN"):
        make_plan("CIFAR10/SNGAN", "native")


# ---- training and the table ----


def test_both_engines_go_from_one_start_and_on(checkout, packed, engines, no_inception):
    table = run_benchmark("CIFAR10/SNGAN", "both", limit_steps=2)
    assert engines == [("native", 0), ("studiogan", 0)]
    weights = [
        load_weights(list_checkpoints(Path(f"runs/bench-cifar10-sngan-{engine}/checkpoints"))[-1], "generator")
        for engine in ("native", "studiogan")
    ]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    starts = cells(table, "initial weights")
    assert starts[1] == starts[2] and re.fullmatch(r"G [0-9a-f]{8} D [0-9a-f]{8}", starts[1])
    assert cells(table, "steps") == ["6", "2 of 6", "2 of 6"]
    assert cells(table, "IS")[0] == "8.677" and cells(table, "FID")[0] == "13.248"
    assert cells(table, "F_1/8")[0] == "0.983" and cells(table, "F_8")[0] == "0.978"
    assert cells(table, "IS")[1:] == cells(table, "FID")[1:] == cells(table, "KID")[1:] == ["- (1)", "- (1)"]
    (note,) = (line for line in table.splitlines() if line.startswith("(1) "))
    assert "pt_inception-2015-12-05-6726825d.pth" in note and "weights" in note
    few = [cells(table, "KID (reader)")[1], cells(table, "FD (reader)")[2]]
    assert all(re.fullmatch(r"\d+\.\d{4} \(2\)", cell) and float(cell.split()[0]) > 0 for cell in few), few
    assert cells(table, "trained on") == ["50K", "24 in 10 classes", "24 in 10 classes"]
    assert cells(table, "compared with")[:2] == ["10K test", "22 valid"] and cells(table, "drawn")[1] == "22"
    assert "cpu" in cells(table, "hardware")[1] and float(cells(table, "s/step")[1]) > 0
    assert Path("runs/bench-cifar10-sngan/benchmark.txt").read_text() == table + "\n"
    kept = json.loads(Path("runs/bench-cifar10-sngan/benchmark.json").read_text())
    assert kept["engines"]["native"]["step"] == 2 and kept["config_file"] == "src/configs/CIFAR10/SNGAN.json"

    again = run_benchmark("CIFAR10/SNGAN", "native", limit_steps=4)
    assert engines[2:] == [("native", 2)]
    assert cells(again, "steps") == ["6", "4 of 6", "2 of 6"] and cells(again, "initial weights") == starts
    shutil.rmtree("runs/bench-cifar10-sngan-studiogan")
    assert cells(run_benchmark("CIFAR10/SNGAN", "native", limit_steps=4), "steps") == ["6", "4 of 6"]


def test_other_weights_than_the_published_are_no_fid(checkout, packed, engines, monkeypatch):
    """The name of the extractor decides; the whole path runs."""
    reader = evaluate.load_featurizer("reader")

    def load(name: str, device: str = "cpu") -> Featurizer:
        if name == "reader":
            return reader
        fields = {**vars(reader), "name": "inception-unverified", "head": lambda features: features[:, :9]}
        return Featurizer(**fields)

    monkeypatch.setattr(evaluate, "load_featurizer", load)
    table = run_benchmark("CIFAR10/SNGAN", "native", limit_steps=1)
    for title in ("IS", "FID", "F_8", "F_1/8", "precision", "coverage", "KID"):
        assert re.fullmatch(r"-?\d+\.\d{4} \(1\)", cells(table, title)[1]), title
    notes = table.splitlines()[-2:]
    assert notes[0].startswith("(1) not a FID") and notes[1].startswith("(2) a rough figure: 22 pictures are fewer")


def test_a_set_of_its_own_folder_needs_no_cifar(checkout, engines):
    with pytest.raises(UserError, match="custom_32_train.hdf5: not there"):
        run_benchmark("CIFAR10/SNGAN", "native", limit_steps=1)
    assert engines == [] and not Path("runs/bench-cifar10-sngan-native").exists()


def test_studiogan_is_looked_for_before_the_other_engine_trains(checkout, packed, engines, monkeypatch):
    lacking = raising(UserError("STUDIOGAN_PYTHON: found no interpreter"))
    monkeypatch.setattr(benchmark, "find_python", lacking)
    with pytest.raises(UserError, match="STUDIOGAN_PYTHON"):
        run_benchmark("CIFAR10/SNGAN", "both", limit_steps=1)
    assert engines == []


def test_time_is_summed_over_the_rows():
    rows = [{"step": 50, "sec_per_step": 2.0}, {"step": 60}, {"step": 70, "sec_per_step": 1.0}]
    assert benchmark._training_time(rows) == {"seconds": 120.0, "sec_per_step": round(120 / 70, 5)}
    assert benchmark._training_time([]) == {"seconds": 0.0, "sec_per_step": None}


# ---- published figures ----


def result_without_figures() -> dict[str, Any]:
    evaluation = {"extractor": "reader", "figures": {}, "left_out": {}, "remark": None, "split": "valid"}
    evaluation |= {"real_count": 1, "count": 1, "batch_statistics": "standing", "resizer": "bilinear"}
    result = {"inception": None, "inception_missing": "no file", "reader": evaluation, "step": 1, "total_steps": 2}
    result |= {"trained_on": {"pictures": 1, "classes": 1}, "start_sha256": None, "hardware": None, "seconds": 0.0}
    return {**result, "sec_per_step": None}


def test_a_configuration_without_published_figures_says_so():
    table = benchmark_table("CIFAR10/SNGAN-LeCam", "0.4.0", "x.yaml", {"native": result_without_figures()})
    assert cells(table, "FID") == ["- (1)", "- (2)"]
    assert "(1) StudioGAN 0.4.0 publishes no figures of CIFAR10/SNGAN-LeCam" in table and "(2) no file" in table


@pytest.mark.studiogan
def test_published_figures_are_those_of_the_readme():
    from harness.studiogan.checkout import find_checkout

    home, published = find_checkout("0.2.0"), read_published("0.2.0")
    pattern = r"^\|.*?\|\s*\d+\s*\|" + r"\s*([\d.]+)\s*\|" * 4 + r"\s*\[Config\]\(\./src/configs/(.*?)\.json\)"
    found = re.findall(pattern, (home / "README.md").read_text(), re.M)
    readme = {row[-1]: [float(value) for value in row[:-1]] for row in found}
    assert published["columns"] == ["is", "fid", "f1_8", "f8"] and len(readme) == 47
    assert {bench: readme[bench] for bench in published["rows"]} == published["rows"]
    assert {bench for bench in readme if bench.startswith("CIFAR10/")} <= set(published["rows"])


@pytest.mark.studiogan
@pytest.mark.parametrize("version", ["0.2.0", "0.4.0"])
def test_each_row_is_about_a_configuration(version):
    from harness.studiogan.checkout import find_checkout

    try:
        folder = find_checkout(version) / "src" / "configs"
    except UserError as error:
        pytest.skip(str(error))
    for bench in read_published(version)["rows"]:
        assert find_bench(bench, folder, version)[0] == bench
        assert bench.partition("/")[0] in read_published(version)["data"]
