"""Pictures are inverted once, into files that are complete; figures match independent formulas."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

import blend.inversion.cached
import blend.inversion.figures
from blend.encoder.model import Encoders, build_encoder, encode
from blend.generator.input_pictures import Parents, load_held_out
from blend.generator.styled_generator import load_generator
from blend.inversion.cached import cached_inversions, draw_sheet, invert_parents
from blend.inversion.distances import picture_error
from blend.inversion.figures import measure_inversion, picture_errors
from harness.errors import Interrupted, UserError
from harness.images.tensors import pictures_to_tensor
from harness.storage.hdf5 import open_packed
from tests.blend.tiny_blend import CONDITIONAL, make_tiny_runs, tiny_config


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    monkeypatch.setattr(blend.inversion.figures, "RANDOM_SAMPLES", 20)


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Any]:
    """config, generator and an untrained encoder."""

    def make(tuned: bool = True, **changes: Any) -> Any:
        config = make_tiny_runs(tmp_path, tuned, **changes)
        generator = load_generator(config, need_tuned=False)
        encoder = build_encoder(config, generator).eval()
        encoder.sha256 = "first"
        return SimpleNamespace(config=config, generator=generator, encoders=Encoders(encoder, encoder))

    return make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of targets of each call of `invert`."""
    real, counts = blend.inversion.cached.invert, []

    def counted(targets: Any, *words: Any, **options: Any) -> Any:
        counts.append(len(targets))
        return real(targets, *words, **options)

    monkeypatch.setattr(blend.inversion.cached, "invert", counted)
    return counts


def errors_of(at: Any, z: torch.Tensor, pictures: np.ndarray, style: int) -> torch.Tensor:
    with torch.no_grad():
        return picture_error(at.generator.at(style)(z), pictures_to_tensor(torch.from_numpy(pictures)))


@pytest.mark.parametrize(("kind", "style"), [("ordinary", 0), ("concept", 1)])
def test_each_kind_is_redrawn_by_its_own_generator(kind: Any, style: int, place: Callable):
    at = place()
    parents = load_held_out(at.config.data, 3)
    found = invert_parents(at.config, at.generator, at.encoders, parents, kind)
    assert len(found) == 3 and found.names == parents.names and np.array_equal(found.targets, parents.pictures)
    assert torch.equal(found.z_first, encode(at.encoders.ordinary, parents.pictures)[0])
    assert np.array_equal(found.encoder, at.generator.draw(found.z_first, style))
    assert np.array_equal(found.refined, at.generator.draw(found.z, style))
    assert torch.allclose(found.error, errors_of(at, found.z, parents.pictures, style), atol=1e-6)
    assert torch.allclose(found.first_error, errors_of(at, found.z_first, parents.pictures, style), atol=1e-6)
    assert not torch.allclose(found.error, errors_of(at, found.z, parents.pictures, 1 - style), atol=1e-6)
    assert (found.error < found.first_error).all()


def test_features_are_those_of_the_run_that_draws(place: Callable, monkeypatch: pytest.MonkeyPatch):
    at, real, runs = place(), blend.inversion.cached.make_features, []
    monkeypatch.setattr(
        blend.inversion.cached, "make_features", lambda name, run: runs.append(run.name) or real(name, run)
    )
    for kind in ("ordinary", "concept"):
        invert_parents(at.config, at.generator, at.encoders, load_held_out(at.config.data, 1), kind)
    assert runs == ["tiny", "tiny-freezed"]


def test_equal_inputs_are_inverted_once(place: Callable, calls: list[int]):
    at = place()
    parents = load_held_out(at.config.data, 3)
    first = invert_parents(at.config, at.generator, at.encoders, parents, "ordinary")
    other_speed = tiny_config(inversion__batch_size=1, inversion__count=99)
    again = invert_parents(other_speed, at.generator, at.encoders, parents, "ordinary")
    assert calls == [3] and again.path == first.path and again.names == first.names
    for name in ("z", "z_first", "error", "first_error"):
        assert torch.equal(getattr(again, name), getattr(first, name))
    for name in ("targets", "encoder", "refined"):
        assert np.array_equal(getattr(again, name), getattr(first, name))


def test_everything_that_decides_the_result_changes_the_file(place: Callable):
    at = place()
    parents = load_held_out(at.config.data, 2)
    dimmer = Parents(parents.names, parents.sha256s, parents.pictures // 2)

    def path(parents: Parents = parents, kind: Any = "ordinary", **changes: Any) -> Path:
        return invert_parents(tiny_config(**changes), at.generator, at.encoders, parents, kind).path

    paths = [path(), path(dimmer), path(kind="concept"), path(inversion__steps=4), path(inversion__pixel_lambda=0.5)]
    at.encoders.ordinary.sha256 = "second"
    paths.append(path())
    assert len(set(paths)) == 6
    assert all(p.parent == Path("runs/tiny/inversions") for p in paths)


@pytest.mark.parametrize("kind", ["cut", "one_bit_of_a_latent", "without_a_hash"])
def test_a_damaged_or_old_file_is_replaced(kind: str, place: Callable, calls: list[int], capsys: pytest.CaptureFixture):
    at = place()
    words = at.config, at.generator, at.encoders, load_held_out(at.config.data, 2), "ordinary"
    first = invert_parents(*words)
    content = first.path.read_bytes()
    flipped = bytearray(content)
    flipped[content.rindex(first.z.numpy().tobytes())] ^= 1
    with safetensors.safe_open(first.path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        stamp = json.loads(file.metadata()["inversion"])
    stamp.pop("content_sha256")
    old = safetensors.torch.save(tensors, {"inversion": json.dumps(stamp)})
    first.path.write_bytes(
        {"cut": content[: len(content) // 2], "one_bit_of_a_latent": flipped, "without_a_hash": old}[kind]
    )
    capsys.readouterr()
    assert cached_inversions(*words) is None and capsys.readouterr().err == ""
    again = invert_parents(*words)
    assert torch.equal(again.z, first.z) and calls == [2, 2] and first.path.read_bytes() == content
    assert [line for line in capsys.readouterr().err.splitlines() if str(first.path) in line and "again" in line]


def test_a_file_names_its_parents_and_settings(place: Callable):
    at = place()
    found = invert_parents(at.config, at.generator, at.encoders, load_held_out(at.config.data, 2), "ordinary")
    with safetensors.safe_open(found.path, "np") as file:
        metadata = json.loads(file.metadata()["inversion"])
        assert set(file.keys()) == {"targets", "encoder", "refined", "z_first", "z", "first_error", "error"}
        assert file.get_tensor("refined").dtype == np.uint8
    assert metadata["names"] == ["valid-00000", "valid-00015"] and metadata["sha256s"] == found.sha256s
    assert metadata["settings"]["lr"] == at.config.inversion.lr and metadata["encoder_sha256"] == "first"
    assert metadata["generator"] == at.generator.key(0)
    sheet = np.asarray(Image.open(found.path.with_suffix(".png")))
    assert np.array_equal(sheet, draw_sheet(found.targets, found.encoder, found.refined))


def test_a_sheet_shows_target_guess_and_refined_in_columns():
    numbers = np.arange(18, dtype=np.uint8)
    pictures = [np.broadcast_to((numbers + k)[:, None, None, None], (18, 4, 4, 3)) for k in (0, 100, 200)]
    sheet = draw_sheet(*pictures)
    assert sheet.shape == (6 * 6 - 2, 16 * 6 - 2, 3)
    assert sheet[[0, 6, 12], 6, 0].tolist() == [1, 101, 201]  # the second target
    assert sheet[[18, 24, 30], 6, 0].tolist() == [17, 117, 217] and sheet[18, 12, 0] == 255
    many = np.broadcast_to(np.uint8(0), (500, 4, 4, 3))
    assert draw_sheet(many, many, many).shape[0] == 4 * 3 * 6 - 2


def test_complete_parts_survive_an_interruption(place: Callable, calls: list[int], monkeypatch: pytest.MonkeyPatch):
    at = place()
    parents = load_held_out(at.config.data, 5)
    whole = invert_parents(at.config, at.generator, at.encoders, parents, "ordinary")
    whole.path.unlink()
    calls.clear()
    monkeypatch.setattr(blend.inversion.cached, "PART_TARGETS", 2)
    counted = blend.inversion.cached.invert

    def stop_at_third(*words: Any, **options: Any) -> Any:
        if len(calls) == 2:
            raise Interrupted("stopped")
        return counted(*words, **options)

    monkeypatch.setattr(blend.inversion.cached, "invert", stop_at_third)
    with pytest.raises(Interrupted):
        invert_parents(at.config, at.generator, at.encoders, parents, "ordinary")
    assert not whole.path.exists()
    monkeypatch.setattr(blend.inversion.cached, "invert", counted)
    again = invert_parents(at.config, at.generator, at.encoders, parents, "ordinary")
    assert calls == [2, 2, 1]
    assert torch.allclose(again.z, whole.z, atol=1e-4) and np.array_equal(again.targets, whole.targets)
    assert sorted(p.suffix for p in again.path.parent.iterdir()) == [".png", ".safetensors"]


def test_parents_of_another_size_are_refused(place: Callable, calls: list[int]):
    at = place()
    parents = Parents(["a"], ["b"], np.zeros((1, 32, 64, 3), np.uint8))
    with pytest.raises(UserError, match="found 32x64 pictures, allowed 32x32") as caught:
        invert_parents(at.config, at.generator, at.encoders, parents, "ordinary")
    assert "\n" not in str(caught.value) and calls == []


def test_concept_pictures_need_a_fine_tuned_run(place: Callable, calls: list[int]):
    at = place(tuned=False)
    parents = load_held_out(at.config.data, 1)
    with pytest.raises(UserError, match="make finetune") as caught:
        invert_parents(at.config, at.generator, at.encoders, parents, "concept")
    assert "\n" not in str(caught.value) and calls == []
    assert invert_parents(at.config, at.generator, at.encoders, parents, "ordinary").y is None


def test_classes_are_predicted_and_kept(place: Callable):
    at = place(**CONDITIONAL)
    parents = load_held_out(at.config.data, 4)
    found = invert_parents(at.config, at.generator, at.encoders, parents, "ordinary")
    expected = encode(at.encoders.ordinary, parents.pictures)[1]
    assert found.y is not None and expected is not None and torch.equal(found.y, expected)
    assert np.array_equal(found.refined, at.generator.draw(found.z, 0, expected))
    again = invert_parents(at.config, at.generator, at.encoders, parents, "ordinary")
    assert again.y is not None and torch.equal(again.y, expected)


# ---- figures ----------------------------------------------------------------------------------------------------


def test_figures_are_means_over_the_targets(place: Callable):
    at = place()
    whole = measure_inversion(at.config, at.generator, at.encoders)
    assert json.loads(Path("runs/tiny/metrics.json").read_text())["inversion"] == whole
    with open_packed(at.config.data.hdf5_path("train")) as packed:
        mean = packed.read().astype(np.float64).mean(0)
    parents = load_held_out(at.config.data, at.config.inversion.count)
    found = invert_parents(at.config, at.generator, at.encoders, parents, "ordinary")
    levels = found.targets / 127.5 - 1
    expected = {
        "targets": 4,
        "encoder_error": float(found.first_error.mean()),
        "refined_error": float(found.error.mean()),
        "refined_error_worst": float(found.error.max()),
        "mean_picture_error": ((levels - (mean / 127.5 - 1)) ** 2).mean(),
        "latent_length": float(found.z.norm(dim=1).mean()),
    }
    assert {key: whole[key] for key in expected} == pytest.approx(expected)
    assert whole["ordinary"].items() <= whole.items()
    assert whole["concept"]["targets"] == 4 and whole["concept"]["mean_picture_error"] != whole["mean_picture_error"]
    assert whole["refined_error"] <= whole["encoder_error"]


def test_the_encoder_error_is_left_out_on_training_pictures(place: Callable):
    at = place(data__valid_fraction=0)
    whole = measure_inversion(at.config, at.generator, at.encoders)
    assert json.loads(Path("runs/tiny/metrics.json").read_text())["inversion"] == whole
    for figures, name in ((whole, "cars"), (whole["ordinary"], "cars"), (whole["concept"], "concept")):
        assert "encoder_error" not in figures and figures["refined_error"] > 0 and figures["targets"] == 2
        assert "held out from training" in figures["left_out"]["encoder_error"]
        assert figures["measured_on"] == f"a seeded sample of the training pictures: 2 of the 40 of {name}"


def test_the_best_of_random_samples_is_found_for_each_target(place: Callable, monkeypatch: pytest.MonkeyPatch):
    at = place()
    samples = at.generator.draw(torch.randn(5, at.generator.latents.z_dim), 0)
    monkeypatch.setattr(blend.inversion.figures, "load_held_out", lambda data, count: Parents(
        ["a", "b"], ["c", "d"], samples[[3, 1]]))  # fmt: skip
    monkeypatch.setattr(blend.inversion.figures, "_random_samples", lambda *_: samples)
    whole = measure_inversion(at.config, at.generator, at.encoders)
    assert whole["best_of_1000_error"] == pytest.approx(0, abs=1e-12)
    monkeypatch.setattr(blend.inversion.figures, "_random_samples", lambda *_: samples[:3])
    assert measure_inversion(at.config, at.generator, at.encoders)["best_of_1000_error"] > 1e-6


def test_without_a_fine_tuned_run_ordinary_pictures_are_measured_alone(place: Callable):
    at = place(tuned=False)
    whole = measure_inversion(at.config, at.generator, at.encoders)
    assert "concept" not in whole and whole["targets"] == 4


def test_picture_errors_are_exact():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (3, 4, 8, 3), np.uint8), rng.integers(0, 256, (5, 4, 8, 3), np.uint8)
    found = picture_errors(a, b)
    for i in range(3):
        for j in range(5):
            expected = (((a[i].astype(float) - b[j]) / 127.5) ** 2).mean()
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


def test_the_callback_gets_the_best_so_far_and_can_stop(place: Callable):
    """The studio shows the progress of a search; a stopped one leaves no file, a finished one is cached."""
    at = place()
    parents = load_held_out(at.config.data, 2)
    seen: list[tuple[int, float]] = []
    assert cached_inversions(at.config, at.generator, at.encoders, parents, "ordinary") is None

    def stop(step: int, z: torch.Tensor, values: torch.Tensor, y: torch.Tensor | None) -> None:
        if step == 2:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        invert_parents(at.config, at.generator, at.encoders, parents, "ordinary", callback=stop)
    assert cached_inversions(at.config, at.generator, at.encoders, parents, "ordinary") is None
    callback = lambda step, z, values, y: seen.append((step, float(values.sum())))  # noqa: E731
    made = invert_parents(at.config, at.generator, at.encoders, parents, "ordinary", callback=callback)
    assert [step for step, _ in seen] == list(range(at.config.inversion.steps + 1))
    assert all(after <= before for (_, before), (_, after) in zip(seen, seen[1:], strict=False))
    kept = cached_inversions(at.config, at.generator, at.encoders, parents, "ordinary")
    assert kept is not None and torch.equal(kept.z, made.z)
