"""Designs on request, from the command to the files, on tiny runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from blend.designs.commands import invert_command, measure_command
from blend.designs.design_set import read_designs
from blend.designs.generate import Request, blend_command, text_to_range, text_to_seeds
from blend.encoder.train import train_encoder
from blend.generator.styled_generator import load_generator
from blend.report.report import make_report
from harness.config.experiment import Config, check_config, config_to_dict
from harness.errors import UserError
from harness.images.decode import save_png
from tests.blend.tiny_blend import CLASS_NAMES, CONDITIONAL, coarse_pictures, make_tiny_runs, quick_work, tiny_config

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny runs with an encoder, in a folder that tests copy."""
    folder = tmp_path_factory.mktemp("made")
    with quick_work(folder):
        train_encoder(make_tiny_runs(folder))
    return folder


@pytest.fixture
def config(made: Path) -> Config:
    shutil.copytree(made, ".", dirs_exist_ok=True)
    return tiny_config()


def folder_of(name: str, count: int) -> Path:
    folder = Path(name)
    folder.mkdir()
    for number, picture in enumerate(coarse_pictures(count, len(name), 48, 48)):
        save_png(folder / f"{name}{number}.png", picture)
    return folder


def test_all_pairs_of_two_folders(config):
    folder = blend_command(config, Request(folder_of("today", 2), folder_of("show", 3), intensity=0.5))
    rows = read_designs(folder)
    assert [(row["ordinary"], row["concept"]) for row in rows] == [
        (f"today{a}.png", f"show{b}.png") for a in range(2) for b in range(3)
    ]
    assert {(row["intensity"], row["latent_weight"], row["style"]) for row in rows} == {(0.5, 0.5, 0.5)}
    assert {row["novelty"]["verdict"] for row in rows} <= {"PASS", "WARN"}
    assert all(0 <= row["identity"] <= 100 and np.isfinite(row["futurism"]) for row in rows)
    pictures = [np.asarray(Image.open(folder / row["file"])) for row in rows]
    assert len({picture.tobytes() for picture in pictures}) == 6
    stamp = (folder / "designs.jsonl").stat().st_mtime_ns
    again = blend_command(config, Request(Path("today"), Path("show"), intensity=0.5))
    assert again == folder and (folder / "designs.jsonl").stat().st_mtime_ns == stamp
    assert blend_command(config, Request(Path("today"), Path("show"), intensity=0.6)) != folder


def test_both_ends_of_the_dial_are_the_parents(config):
    one = Request(folder_of("today", 1), folder_of("show", 1))
    generator = load_generator(config)
    for intensity, kind in ((0.0, "ordinary"), (1.0, "concept")):
        (row,) = read_designs(folder := blend_command(config, Request(one.ordinary, one.concept, intensity)))
        (path,) = Path("runs/tiny/inversions").glob(f"{kind}-*.safetensors")
        expected = generator.draw(load_file(path)["z"], intensity)[0]
        apart = np.abs(np.asarray(Image.open(folder / row["file"])).astype(int) - expected)
        assert apart.max() <= 1


def test_a_name_with_other_designs_is_refused_and_an_incomplete_set_is_drawn_again(config):
    folder = blend_command(config, Request(seeds=(0, 1), name="mine"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for other in (Request(seeds=(7,), name="mine"), Request(seeds=(0, 1), intensity=0.9, name="mine")):
        with pytest.raises(UserError, match="name: found 'mine', which holds other designs"):
            blend_command(config, other)
    (folder / "0001.png").unlink()
    assert blend_command(config, Request(seeds=(0, 1), name="mine")) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    blend_command(config, Request(seeds=(1,), name="mine.new"))
    blend_command(config, Request(seeds=(2,), name="mine2"))
    assert {"mine", "mine.new", "mine2"} <= {path.name for path in folder.parent.iterdir()}


def test_one_pair_over_a_range(config):
    request = Request(folder_of("today", 1), folder_of("show", 1), range=(0.0, 1.0, 5), name="walk")
    folder = blend_command(config, request)
    assert folder == Path("runs/tiny/blends/walk")
    assert [row["intensity"] for row in read_designs(folder)] == [0, 0.25, 0.5, 0.75, 1]
    with Image.open(folder / "sweep.webp") as movie:
        assert getattr(movie, "n_frames", 1) == 8  # there and back
    folder_of("more", 2)
    with pytest.raises(UserError, match="range: found 2 pairs of parents, allowed one"):
        blend_command(config, Request(Path("today"), Path("more"), range=(0.0, 1.0, 5)))


def test_a_target_futurism(config):
    parents = folder_of("today", 1), folder_of("show", 1)
    ends = [read_designs(blend_command(config, Request(*parents, intensity=t)))[0]["futurism"] for t in (0.0, 1.0)]
    target = round(sum(ends) / 2, 1)
    (row,) = read_designs(blend_command(config, Request(*parents, futurism=target)))
    assert row["asked_futurism"] == target and row["intensity"] is None
    assert row["futurism"] == pytest.approx(target, abs=0.2 * abs(ends[1] - ends[0]))
    with pytest.raises(
        UserError, match=r"^futurism: found 1e\+06, allowed -?\d+ to -?\d+ for today0.png with show0.png"
    ):
        blend_command(config, Request(*parents, futurism=1e6))


def test_pairs_within_reach_are_drawn_and_the_others_logged(config, capsys):
    parents = folder_of("today", 3), folder_of("show", 2)
    whole = read_designs(blend_command(config, Request(*parents, intensity=0.0)))
    highest = max(row["futurism"] for row in whole)
    capsys.readouterr()
    rows = read_designs(blend_command(config, Request(*parents, futurism=highest)))
    assert 0 < len(rows) < 6 and {row["asked_futurism"] for row in rows} == {highest}
    output = capsys.readouterr().err
    assert f"{len(rows)} of 6 pairs reach it" in output and output.count("out of reach, ") == 6 - len(rows)
    drawn = {f"{row['ordinary']} with {row['concept']}" for row in rows}
    assert not any(name in output for name in drawn)


def test_cars_by_seed(config):
    folder = blend_command(config, Request(seeds=(3, 5), intensity=0.0))
    rows = read_designs(folder)
    assert [(row["seed"], row["ordinary"], row["identity"]) for row in rows] == [(3, None, 100.0), (5, None, 100.0)]
    (alone,) = read_designs(other := blend_command(config, Request(seeds=(5,), intensity=0.0)))
    assert (other / alone["file"]).read_bytes() != b"" and alone["futurism"] == pytest.approx(rows[1]["futurism"])


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request(intensity=0.5, futurism=50), "intensity, futurism: found 2 of them, allowed one"),
        (Request(futurism=50, style=0.5), "style: found with futurism"),
        (Request(futurism=float("nan")), "futurism: found nan, allowed a number"),
        (Request(seeds=(1,), range=(0, 1, 3)), "seeds: found with parents or a range"),
        (Request(label="Audi"), "label: found without cars"),
        (Request(seeds=(1,), label="Audi"), "label: found 'Audi', allowed none: the run was trained without classes"),
        (Request(name="../x"), "name: found '../x', allowed letters"),
        (Request(name="sweep"), "name: found 'sweep'.* and not sweep"),
        (Request(ordinary=Path("x")), "concept: found none, allowed a folder or a picture for each parent"),
        (Request(Path("nowhere"), Path("nowhere")), "nowhere: found no such folder"),
    ],
)
def test_options_that_exclude_each_other_are_refused(config, request_, text):
    with pytest.raises(UserError, match=text):
        blend_command(config, request_)


@pytest.mark.parametrize("text", ["", "0:1", "0:2:3", "a:b:c", "0:1:1", "0:1:3:4", "nan:1:3"])
def test_a_malformed_range_is_refused(text):
    with pytest.raises(UserError, match="^range: found .*, try --range 0:1:11"):
        text_to_range(text)
    assert text_to_range("1:0:3") == (1.0, 0.0, 3)


def test_a_class_is_given_or_predicted(tmp_path):
    config = make_tiny_runs(tmp_path, **CONDITIONAL)
    train_encoder(config)
    parents = folder_of("today", 2), folder_of("show", 1)
    found = [blend_command(config, Request(*parents, intensity=0.2, label=label)) for label in (None, *CLASS_NAMES)]
    pictures = [(folder / "0000.png").read_bytes() for folder in found]
    assert len(set(found)) == 3 and pictures[1] != pictures[2]
    mixed = blend_command(config, Request(*parents, intensity=0.2, label="ordinary:0.5,concept:0.5"))
    whole = blend_command(config, Request(*parents, intensity=0.2, label="ordinary:1"))
    assert (mixed / "0000.png").read_bytes() not in pictures and whole == found[1]
    seeded = [blend_command(config, Request(seeds=(3,), label=label)) for label in ("1", "concept", "concept:2,0:1")]
    assert seeded[0] == seeded[1] != seeded[2]
    with pytest.raises(UserError, match="label: found 'Audi', allowed ordinary, concept, a number from 0 to 1, or"):
        blend_command(config, Request(*parents, label="Audi"))


def test_missing_parts_are_refused_in_one_line(config):
    shutil.rmtree("runs/tiny/encoder")
    with pytest.raises(UserError, match="encoder: found none in .*make encoder"):
        blend_command(config, Request())
    shutil.rmtree("runs/tiny-freezed")
    with pytest.raises(UserError, match="found no fine-tuned run"):
        blend_command(config, Request())


def test_measuring_writes_figures_and_a_sweep(config):
    sheets = invert_command(config, None, "ordinary")
    assert all(path.is_file() for path in sheets) and len(sheets) == 2
    assert measure_command(config) == Path("runs/tiny/metrics.json")
    figures = json.loads(Path("runs/tiny/metrics.json").read_text())
    assert figures["blend"]["pairs"] == 3 and -1 <= figures["blend"]["spearman_worst"] <= 1
    assert len(figures["blend"]["curve"]["reader"]) == 11 and figures["blend"]["equal_futurism"]["pairs"] == 3
    assert figures["inversion"]["targets"] == 4
    rows = read_designs(Path("runs/tiny/blends/sweep"))
    assert [row["intensity"] for row in rows] == [k / 10 for k in range(11)] * 3
    stamp = Path("runs/tiny/metrics.json").stat().st_mtime_ns
    measure_command(config)
    assert Path("runs/tiny/metrics.json").stat().st_mtime_ns == stamp
    changed = check_config({**config_to_dict(config), "blend": {**config_to_dict(config)["blend"], "pairs": 2}}, "x")
    measure_command(changed)
    assert json.loads(Path("runs/tiny/metrics.json").read_text())["blend"]["pairs"] == 2
    page = make_report(config).read_text()
    assert "make measure" not in page and "Does futurism follow the dial?" in page


def test_a_folder_can_be_inverted(config):
    (sheet,) = invert_command(config, folder_of("mine", 2), "concept")
    assert sheet.is_file() and sheet.name.startswith("concept-")


@pytest.mark.parametrize(("text", "seeds"), [("0-3", [0, 1, 2, 3]), ("5", [5]), ("8, 1-2,4", [8, 1, 2, 4])])
def test_lists_of_seeds(text, seeds):
    assert text_to_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1,1", "0-99999999", "1.5", "1-2-3"])
def test_malformed_lists_are_refused(text):
    with pytest.raises(UserError, match="^seeds: found .*, try --seeds 0-31"):
        text_to_seeds(text)
