"""The Inception featurizer: its network against StudioGAN's, and how its file is found, checked and refused."""

import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.errors import UserError
from harness.features import inception, load_featurizer
from harness.features.inception import INCEPTION_FILE, InceptionNet, load_inception, pictures_to_299
from tests.golden import metrics_case as case
from tests.golden.make_metrics_golden import studiogan_inception
from tests.harness.features.inception_weights import draw_weights, write_weights
from tests.harness.sabotage import Trap
from tests.refusals import refusal_of

PICTURES = case.pictures()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "drawn.pth", case.WEIGHTS_SEED)


@pytest.fixture(autouse=True)
def no_weights_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own files and the network are out of reach."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("CARFORGE_WEIGHTS", "CARFORGE_INCEPTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(inception, "WEIGHTS", replace(inception.WEIGHTS, url=(tmp_path / "nowhere").as_uri()))


def as_published(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this file pass for the published one."""
    sha256 = {INCEPTION_FILE: load_inception(path).sha256[:8]}
    monkeypatch.setattr(inception, "WEIGHTS", replace(inception.WEIGHTS, sha256=sha256))


# ---- the network ------------------------------------------------------------------------------------------------


@pytest.mark.studiogan
def test_features_and_logits_are_those_of_studiogans_network(
    weights: Path, tmp_path: Path, studiogan_python: Path
) -> None:
    theirs, ours = studiogan_inception(weights, PICTURES, studiogan_python, tmp_path), load_inception(weights)
    features = ours(PICTURES)
    assert theirs["features"].std(0).mean() > 1e-3  # pictures are told apart: equal numbers mean something
    np.testing.assert_allclose(features, theirs["features"], atol=1e-5)
    np.testing.assert_allclose(ours.logits(features), theirs["logits"], atol=1e-5)  # type: ignore[arg-type]


def test_features_and_logits_are_those_kept_of_studiogans_network(weights: Path) -> None:
    golden = json.loads((Path(case.__file__).parent / "metrics.json").read_text())["studiogan_inception"]
    featurizer = load_inception(weights)
    features = featurizer(PICTURES)
    np.testing.assert_allclose(features[:, case.SHOWN_FEATURES], golden["features"], atol=1e-5)
    logits = featurizer.logits(features)
    assert logits is not None
    np.testing.assert_allclose(logits[:, case.SHOWN_LOGITS], golden["logits"], atol=1e-5)


def test_parameters_have_the_published_files_names_and_shapes() -> None:
    shapes = {name: tuple(value.shape) for name, value in InceptionNet().state_dict().items()}
    assert sum(name.endswith("conv.weight") for name in shapes) == 94
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_5b.branch5x5_2.conv.weight"] == (64, 48, 5, 5)
    assert shapes["Mixed_6b.branch7x7dbl_4.conv.weight"] == (128, 128, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,)
    assert shapes["fc.weight"] == (1008, 2048)


def test_pictures_are_resized_without_antialiasing_and_stretched() -> None:
    levels = np.zeros((1, 8, 8, 3), np.uint8) + np.array([0, 51, 255], np.uint8)
    torch.testing.assert_close(pictures_to_299(levels)[0, :, 150, 7], torch.tensor([-1.0, -0.6, 1.0]))
    stripes = np.zeros((1, 598 * 2, 598 * 2, 3), np.uint8)
    stripes[:, :, 1::4] = 255  # every output pixel lies between source columns 1 and 2 of its four, and sees these two
    torch.testing.assert_close(pictures_to_299(stripes), torch.zeros(1, 3, 299, 299), atol=1e-4, rtol=0)
    assert pictures_to_299(np.zeros((2, 20, 48, 3), np.uint8)).shape == (2, 3, 299, 299)


def test_features_depend_neither_on_the_batch_nor_on_the_precision_of_training(weights: Path) -> None:
    featurizer = load_inception(weights)
    features = featurizer(PICTURES)
    assert features.shape == (3, 2048) and features.dtype == np.float32
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_allclose(featurizer(PICTURES, batch_size=2), features, atol=1e-5)
    assert featurizer(PICTURES[:0]).shape == (0, 2048)


@pytest.mark.gpu
def test_a_gpu_computes_in_fp32_too(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    features = load_inception(weights, "cuda")(PICTURES)
    assert torch.backends.cudnn.allow_tf32
    np.testing.assert_allclose(features, load_inception(weights)(PICTURES), atol=1e-4)  # TF32 is off by 1e-3


def test_loading_draws_no_random_numbers(weights: Path) -> None:
    before = torch.get_rng_state()
    load_inception(weights)
    assert torch.equal(torch.get_rng_state(), before)


# ---- its file ---------------------------------------------------------------------------------------------------


def test_without_a_file_one_line_says_what_is_missing_and_where_to_put_it(tmp_path: Path) -> None:
    assert inception.WEIGHTS.find() is None
    text = refusal_of(load_featurizer, "inception")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    assert all(part in text for part in (INCEPTION_FILE, str(folder), inception.WEIGHTS.url))
    assert list(folder.iterdir()) == []


def test_other_weights_are_taken_when_named_and_never_pass_for_the_published(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_inception(weights).name == "inception-unverified"
    monkeypatch.setenv("CARFORGE_INCEPTION", str(weights))
    featurizer = load_featurizer("inception")
    assert featurizer.name == "inception-unverified" and featurizer.resizer == "bilinear 299"
    assert load_featurizer("reader").logits(np.zeros((2, 128), np.float32)) is None
    monkeypatch.setenv("CARFORGE_INCEPTION", str(weights.with_name("absent.pth")))
    with pytest.raises(UserError, match="absent.pth: cannot be read"):
        load_inception()


@pytest.mark.parametrize("place", ["CARFORGE_WEIGHTS", "torch's cache"])
def test_a_placed_file_is_found_and_must_be_the_published_one(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    if place == "CARFORGE_WEIGHTS":
        folder = tmp_path / "mine"
        monkeypatch.setenv("CARFORGE_WEIGHTS", str(folder))
    folder.mkdir(parents=True)
    (folder / INCEPTION_FILE).symlink_to(weights)
    assert re.search("found sha256 .* allowed 6726825d…; remove it", refusal_of(load_inception))
    as_published(weights, monkeypatch)
    assert inception.WEIGHTS.find() == folder / INCEPTION_FILE and load_inception().name == "inception"


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path, drawn = tmp_path / "x.pth", draw_weights()
    less = {name: value for name, value in drawn.items() if name != "Mixed_6d.branch1x1.conv.weight"}
    for content in (less, {"fc.bias": torch.zeros(1000)}, [1, 2], {"network": torch.nn.Linear(2, 2)}):
        torch.save(content, path)
        assert "not a file of Inception weights" in refusal_of(load_inception, path)
    path.write_bytes(b"not weights at all")
    assert "not a file of Inception weights" in refusal_of(load_inception, path)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"fc.bias": Trap(tmp_path / "made")}, tmp_path / "x.pth")
    assert "not a file of Inception weights" in refusal_of(load_inception, tmp_path / "x.pth")
    assert not (tmp_path / "made").exists()


@pytest.fixture
def served(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The drawn file stands behind the pinned address; what is asked for is listed."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(weights.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{weights.name}"
    monkeypatch.setattr(inception, "WEIGHTS", replace(inception.WEIGHTS, url=url))
    yield asked
    server.shutdown()
    server.server_close()


def test_a_download_is_checked_and_kept(
    served: list[str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    with pytest.raises(UserError, match="instead of 6726825d"):
        load_inception()
    assert list(folder.iterdir()) == []  # nothing half or wrong stays
    as_published(weights, monkeypatch)
    assert load_inception().name == load_inception().name == "inception"
    assert len(served) == 2 and [path.name for path in folder.iterdir()] == [INCEPTION_FILE]
