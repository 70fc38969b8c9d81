"""The page is self-contained and complete, names what is missing, and escapes names of files."""

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from blend.report import sections
from blend.report.design_rows import read_designs
from blend.report.reading import RunFiles
from blend.report.report import make_report
from harness.errors import UserError
from harness.images.decode import picture_grid, save_png
from harness.storage.rundir import RunDir
from tests.blend.report.report_run import (
    design_row,
    make_demo_figures,
    make_designs,
    make_encoder,
    make_evaluations,
    make_inversions,
    make_sweep,
    plain_draw,
)
from tests.blend.tiny_blend import JOINT, make_tiny_runs, tiny_config
from tests.page import Page

SECTIONS = "teaser damaged dial figures samples training evaluation inversion sweep designs latent provenance".split()
HOSTILE = "<script>alert(1)</script>\"'&.jpg"


def page_of(path: Path) -> Page:
    return Page(path, *SECTIONS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a tiny experiment after all stages."""
    root = tmp_path_factory.mktemp("made")
    config = make_tiny_runs(root)
    folder, draw = root / "runs" / config.name, plain_draw(config)
    names = [f"valid-{k:05d}" for k in range(9)]
    make_encoder(folder, config.model.z_dim)
    for kind in ("ordinary", "concept"):
        make_inversions(folder, draw, names, kind)
    for run in ("tiny", "tiny-freezed"):
        (root / "runs" / run / "samples").mkdir()
        grid = picture_grid([draw(k, 0.5) for k in range(4)], 2)
        save_png(root / "runs" / run / "samples/step-00000004.png", grid)
    make_sweep(folder, draw, 2)
    rows = [design_row(k, 0.5, futurism=10 * k % 70 + 0.5, identity=90 - k) for k in range(12)]
    rows[3]["novelty"]["reader"]["percentile"], rows[3]["novelty"]["verdict"] = 0.4, "WARN"
    make_designs(folder, "pairs-01234567", rows, [draw(k, 0.5) for k in range(12)])
    make_demo_figures(folder)
    make_evaluations(folder, {2: 9.5, 4: 3.25})
    make_evaluations(root / "runs/tiny-freezed", {4: 7.125}, set="concept")
    return root


@pytest.fixture(scope="module")
def page(made):
    """Its page; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        path = make_report(tiny_config())
        assert path == Path("runs/tiny/report.html")
        return page_of(path)


@pytest.fixture
def whole(made, tmp_path, monkeypatch):
    """A copy to change: the working directory is its root, the return value its run's folder."""
    shutil.copytree(made, tmp_path / "whole")
    monkeypatch.chdir(tmp_path / "whole")
    return Path("runs/tiny")


def test_the_page_is_self_contained_and_complete(page):
    assert len(page.html) < 8e6
    addresses = [
        found[key] for _, found in page.tags for key in ("src", "href", "xlink:href", "srcset") if key in found
    ]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert all(inside.startswith(("#", "data:")) for inside in re.findall(r"url\(['\"]?([^)]*)", page.html))
    assert "@import" not in page.html and "fetch(" not in page.html
    (policy,) = (found["content"] for _, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    script = page.html.partition("<script>")[2].partition("</script>")[0]
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and policy.endswith(f"script-src 'sha256-{sha256}'")
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert set(SECTIONS) - {"damaged"} <= set(ids) and len(ids) == len(set(ids))
    assert all(found["alt"] for found in page.having("img", "src"))
    assert "make " not in "".join(page.texts.get(name, "") for name in SECTIONS[:-1])  # nothing is missing
    for figure in ("0.751", "0.0078", "0.981", "+58", "14 min 54 s", "0.970"):
        assert figure in page.texts["figures"]
    assert "no: both generators were trained" in page.texts["provenance"]


def test_evaluations_are_shown_with_their_names_and_counts(page):
    text = page.texts["evaluation"]
    for part in (
        "1,500 generated pictures and 400 held-out pictures of cars; features: reader",
        "held-out pictures of concept",
        "fd_reader Fréchet distance of the features",
        "f1_8_reader F 1/8: quality",
        "left out: neighbours: found 5",
    ):
        assert part in text, text
    assert "3.2500" in text and "7.1250" in text and "9.5000" not in text  # the newest; the chart has both
    charts = re.findall(r"<svg.*?</svg>", page.html[page.html.index('id="evaluation"') :].split("</section>")[0], re.S)
    assert len(charts) == 1 and "fd_reader of ordinary cars over the steps" in charts[0]
    assert [found["href"] for found in page.having("a", "href")].count("#evaluation") == 1


def test_every_stage_that_has_not_run_is_named_with_its_command(whole):
    for later in (
        "runs/tiny-freezed",
        "runs/tiny/samples",
        *(whole / name for name in ("encoder", "inversions", "blends")),
    ):
        shutil.rmtree(later)
    (whole / "metrics.json").unlink()
    page = page_of(make_report(tiny_config()))
    assert "#evaluation" not in page.html  # not a stage: it is there when asked for
    expected = {
        "teaser": ["measure"],
        "dial": ["measure"],
        "figures": ["encoder", "invert", "measure", "demo"],
        "samples": ["train", "finetune"],
        "training": ["finetune", "encoder"],
        "inversion": ["invert"],
        "sweep": ["measure"],
        "designs": ["blend"],
        "latent": ["encoder"],
        "provenance": ["demo"],
    }
    for section, targets in expected.items():
        found = set(re.findall(r"make ([a-z]+)", page.texts[section])) - {"gallery"}  # the footer's
        assert found == set(targets), section


@pytest.mark.parametrize("key", ["pixel", "none of the page's"])
def test_a_joint_encoder_is_not_called_untrained(in_tmp_path, key):
    """Its curve comes from the statistics of the run, if there are any."""
    config = make_tiny_runs(Path(), **JOINT)
    for step in range(5, 8):
        RunDir(Path("runs/tiny")).append_stats({"step": step, key: 1.0 / step})
    page = page_of(make_report(config))
    assert "trained together with the generator" in page.texts["training"]
    assert ("Pixel loss of redrawn training pictures" in page.html) == (key == "pixel")
    assert ("No statistics were kept." in page.texts["training"]) == (key != "pixel")
    assert "make " not in page.texts["training"]


def test_without_packed_sets_the_page_says_so(whole):
    shutil.rmtree("data")
    page = page_of(make_report(tiny_config()))
    assert "make dataset" in page.texts["samples"]
    assert page.having("li", "data-futurism")


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="make train"):
        make_report(tiny_config(), tmp_path)


def test_cards_carry_what_they_are_sorted_by_and_begin_sorted(page, made):
    cards = page.having("li", "data-futurism")
    rows = [
        json.loads(line) for line in (made / "runs/tiny/blends/pairs-01234567/designs.jsonl").read_text().splitlines()
    ]
    rows.sort(key=lambda row: -row["futurism"])
    assert [float(card["data-futurism"]) for card in cards] == [row["futurism"] for row in rows]
    assert [float(card["data-identity"]) for card in cards] == [row["identity"] for row in rows]
    novelty = [min(row["novelty"][space]["percentile"] for space in ("reader", "discriminator")) for row in rows]
    assert [float(card["data-novelty"]) for card in cards] == novelty and min(novelty) == 0.4


def test_each_design_is_shown_with_its_parents_and_nearest_training_pictures(page):
    thumbs = [found["alt"] for found in page.having("img", "alt") if found["alt"].startswith(("nearest", "ordinary"))]
    assert any(alt.startswith("nearest, by reader: cars row 3, distance 0.4, percentile 0.4") for alt in thumbs)
    assert any(alt.startswith("nearest, by GAN: concept row 3") for alt in thumbs)
    assert any(alt == "ordinary parent: valid-00003" for alt in thumbs)
    badges = re.findall(r"Copy check: </span>(\w+)", page.html)
    assert sorted(badges) == ["PASS"] * 11 + ["WARN"]


def test_parents_of_one_name_differ_by_their_kind(page):
    source = {found["alt"]: found["src"] for found in page.having("img", "alt")}
    assert source["ordinary parent: valid-00003"] != source["concept parent: valid-00003"]


def test_names_are_never_markup(whole):
    draw = plain_draw(tiny_config())
    make_inversions(whole, draw, [HOSTILE])
    row = design_row(0, 0.5, ordinary=HOSTILE, concept="</details><img src=x onerror=alert(1)>", file="a<b>'.png")
    make_designs(whole, "named", [row], [draw(0, 0.5)])
    page = page_of(make_report(tiny_config()))
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1
    assert not [found for _, found in page.tags if any(key.startswith("on") for key in found)]
    assert "<script>alert(1)</script>" in page.texts["designs"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "", None, 3, "a.txt"])
def test_rows_without_a_picture_in_their_folder_are_left_out(tmp_path, name):
    draw = plain_draw(tiny_config())
    save_png(tmp_path / "secret.png", draw(0, 0.5))
    make_designs(tmp_path, "odd", [design_row(0, 0.5)], [draw(0, 0.5)])
    save_png(tmp_path / "blends/secret.png", draw(0, 0.5))
    (tmp_path / "blends/odd/a.txt").write_text("no picture")
    rows = [json.dumps(design_row(0, 0.5, file=name)), '{"half": ', "3", json.dumps(design_row(0, 0.5))]
    (tmp_path / "blends/odd/designs.jsonl").write_text("\n".join(rows))
    files = RunFiles()
    assert [design.file for design in read_designs(tmp_path / "blends", files)["odd"]] == ["0000.png"]
    assert ["designs.jsonl: is damaged in 2 of 4 lines" in text for text in files.damaged.values()] == [True]


def test_odd_and_missing_figures_are_dashes(whole):
    odd = {"encoder": {"latent_mse": None, "explained": ["x"]}, "inversion": 3, "blend": {"curve": {"intensity": [0]}}}
    (whole / "metrics.json").write_text(json.dumps({**odd, "demo": {"seconds": True, "stages": []}, "measures": []}))
    row = design_row(0, 0.5, futurism=None, identity="high", novelty={"verdict": "EVIL", "reader": 1})
    make_designs(whole, "odd", [row], [plain_draw(tiny_config())(0, 0.5)])
    page = page_of(make_report(tiny_config()))
    card = next(found for found in page.having("li", "data-set") if found["data-set"] == "odd")
    assert card["data-futurism"] == card["data-identity"] == card["data-novelty"] == ""
    assert page.texts["figures"].count("Not measured yet") == 5 and "EVIL" not in page.html


def test_imported_weights_are_named(whole):
    env = json.loads((whole / "env.json").read_text())
    (whole / "env.json").write_text(json.dumps({**env, "imported_from": "/their/checkpoints"}))
    text = page_of(make_report(tiny_config())).texts["provenance"]
    assert "no: tiny came from elsewhere" in text and "/their/checkpoints" in text


def test_damaged_files_are_listed_on_the_page(whole, capsys):
    damaged = ["metrics.json", "env.json", "status.json", "stats.jsonl", "encoder/stats.jsonl"]
    damaged += [path.relative_to(whole).as_posix() for path in whole.glob("blends/*/designs.jsonl")]
    for name in damaged:
        (whole / name).write_bytes(b'{"half": \xff')
    (inversions,) = whole.glob("inversions/ordinary-*.safetensors")
    inversions.write_bytes(b"damaged")
    (whole / "samples/step-00000004.png").write_bytes(b"damaged")
    page, lines = page_of(make_report(tiny_config())), capsys.readouterr().err.splitlines()
    assert "Concept pictures" in page.texts["inversion"] and "Ordinary pictures" not in page.texts["inversion"]
    for name in [*damaged, inversions.relative_to(whole).as_posix()]:
        (line,) = (line for line in lines if line.startswith(f"runs/tiny/{name}: is damaged"))
        assert line in page.texts["damaged"]
    assert len(lines) == len(damaged) + 1
    # A damaged section is not called undone, and no command is named that would not repair it.
    for section in ("teaser", "dial", "figures", "training", "sweep", "designs", "latent", "provenance"):
        assert "is damaged" in page.texts[section] and "make " not in page.texts[section].partition("Written")[0]


def test_a_page_of_intact_files_mentions_no_damage(page):
    assert "damaged" not in page.html and page.texts.get("damaged") is None


PROBE = """<script>
document.querySelector('button[data-sort="identity"]').click();
document.querySelector('button[data-sort="identity"]').click();
var dial = document.getElementById("intensity");
dial.value = dial.max;
dial.dispatchEvent(new Event("input"));
function shown() { return [...document.querySelectorAll("#cards > li")].filter((li) => li.offsetHeight > 0).length; }
var more = document.getElementById("more"), first = shown();
more.click();
parent.postMessage(JSON.stringify({
  lowest: document.querySelector("#cards > li").dataset.identity,
  dial: document.querySelector(".car output").textContent,
  cards: [first, shown(), more.offsetHeight],
  over_px: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  width_px: window.innerWidth
}), "*");
</script>"""
PHONE = """<body><script>onmessage = function (event) { document.body.dataset.found = event.data; };</script>
<iframe src="page.html" style="width: 380px; height: 900px; border: 0"></iframe></body>"""


@pytest.mark.browser
def test_a_browser_sorts_turns_the_dial_and_fits_a_phone(page, tmp_path, tab):
    (tmp_path / "page.html").write_text(page.html, encoding="utf-8")
    tab.goto((tmp_path / "page.html").as_uri())  # its own script runs under its policy, or the console complains
    tab.locator("html.js").wait_for()
    probed = re.sub("script-src '[^']*'", "script-src 'unsafe-inline'", page.html).replace("</body>", PROBE + "</body>")
    (tmp_path / "page.html").write_text(probed, encoding="utf-8")
    (tmp_path / "phone.html").write_text(PHONE)
    tab.goto((tmp_path / "phone.html").as_uri())
    found = tab.locator("body[data-found]").get_attribute("data-found")
    expected = {"lowest": "79.0", "dial": "93", "cards": [8, 12, 0], "over_px": 0, "width_px": 380}
    assert json.loads(found) == expected


def test_figures_that_cannot_be_trusted_are_doubted():
    doubts = sections.doubts({"measures": {"background_auc": 0.97}, "blend": {"spearman_mean": -0.4}})
    assert "Backgrounds alone" in doubts[0] and "AUC 0.97" in doubts[0] and "-0.40" in doubts[1]
    assert sections.doubts({"measures": {"background_auc": 0.6}, "blend": {"spearman_mean": 0.98}}) == []
    assert sections.doubts({}) == []
