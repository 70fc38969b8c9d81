"""Precision, recall, density, coverage, F_8, F_1/8, Inception Score: against plain implementations and StudioGAN's."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans
from sklearn.neighbors import NearestNeighbors

from harness.errors import UserError
from harness.metrics import distances, precision_recall
from harness.metrics.distances import kid
from harness.metrics.f_beta import f_beta_scores, prd_curve
from harness.metrics.frechet import frechet_distance, statistics_of
from harness.metrics.inception_score import inception_score
from harness.metrics.precision_recall import prdc
from harness.studiogan.checkout import find_checkout
from tests.golden import metrics_case as case
from tests.refusals import refusal_of


def features(count: int, seed: int, shift: float = 0.0, dim: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)) + shift


# ---- precision, recall, density, coverage -----------------------------------------------------------------------


def prdc_by_neighbours(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    def radii(x: np.ndarray) -> np.ndarray:
        return NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1]  # without the point itself

    def balls(centres: np.ndarray, x: np.ndarray) -> np.ndarray:
        gaps, order = NearestNeighbors(n_neighbors=len(centres)).fit(centres).kneighbors(x)
        return np.take_along_axis(gaps <= radii(centres)[order], np.argsort(order, 1), 1)  # (len(x), len(centres))

    inside_real, inside_fake = balls(real, fake), balls(fake, real)
    return {
        "precision": inside_real.any(1).mean(),
        "recall": inside_fake.any(1).mean(),
        "density": inside_real.sum() / k / len(fake),
        "coverage": inside_real.any(0).mean(),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_is_that_of_a_neighbour_search(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (distances, precision_recall):
        monkeypatch.setattr(module, "BLOCK_ROWS", 32)  # several blocks, the last one short
    real, fake = features(150, 0), features(110, 1, shift=0.5)
    expected = prdc_by_neighbours(real, fake, k)
    assert prdc(real, fake, k) == pytest.approx(expected, abs=1e-12)
    assert 0.2 < expected["precision"] < 1 and expected["recall"] != expected["coverage"]


def test_prdc_of_known_sets() -> None:
    real = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    left = np.array([[0.15], [0.2], [0.3], [0.4]])  # true to life, half of it missing
    expected = {"precision": 1, "recall": 0, "density": 2.0, "coverage": 2 / 6}
    assert prdc(real, left, 1) == pytest.approx(expected)
    assert prdc(real, real, 1) == pytest.approx({"precision": 1, "recall": 1, "density": 14 / 6, "coverage": 1})
    assert set(prdc(real, real + 100, 1).values()) == {0.0}


def test_more_neighbours_than_pictures_are_refused() -> None:
    with pytest.raises(UserError, match="neighbours: found 5 for 20 and 5 pictures"):
        prdc(features(20, 0), features(5, 1), 5)


# ---- F_8 and F_1/8 ----------------------------------------------------------------------------------------------


def f_by_angles(real_shares: np.ndarray, fake_shares: np.ndarray, beta: float) -> float:
    best = 0.0
    for angle in np.linspace(1e-10, np.pi / 2 - 1e-10, 1001):
        slope = np.tan(angle)
        precision = sum(min(slope * p, q) for p, q in zip(real_shares, fake_shares, strict=True))
        recall = sum(min(p, q / slope) for p, q in zip(real_shares, fake_shares, strict=True))
        best = max(best, (1 + beta**2) * precision * recall / (beta**2 * precision + recall + 1e-10))
    return best


def test_one_runs_figures_are_those_of_a_plain_retelling() -> None:
    real, fake = features(300, 0), features(200, 1, shift=0.6)
    clustering = MiniBatchKMeans(20, n_init=10, random_state=np.random.RandomState(5))  # type: ignore[arg-type]
    labels = np.asarray(clustering.fit(np.vstack([real, fake])).labels_)
    real_shares = np.array([(labels[:300] == k).mean() for k in range(20)])
    fake_shares = np.array([(labels[300:] == k).mean() for k in range(20)])
    expected = f_by_angles(real_shares, fake_shares, 8), f_by_angles(real_shares, fake_shares, 1 / 8)
    assert f_beta_scores(real, fake, runs=1, seed=5) == pytest.approx(expected, abs=1e-6)
    assert min(expected) < 0.95 and abs(expected[0] - expected[1]) > 0.01


def test_f8_leans_on_variety_and_its_inverse_on_quality() -> None:
    real = np.concatenate([features(200, 0), features(200, 1, shift=20)])
    half = features(400, 2)  # every picture true to life, half of the kinds missing
    f8, inverse = f_beta_scores(real, half, runs=3)
    assert inverse > 0.75 > 0.6 > f8
    assert f_beta_scores(half, real, runs=3) == pytest.approx((inverse, f8), abs=0.1)
    assert min(f_beta_scores(real, real, runs=3)) == pytest.approx(1, abs=1e-3)
    assert max(f_beta_scores(real, real + 500, runs=3)) < 1e-6
    assert f_beta_scores(real, half, runs=2, seed=3) == f_beta_scores(real, half, runs=2, seed=3)


def test_the_curve_reaches_from_all_recall_to_all_precision() -> None:
    precision, recall = prd_curve(np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.25, 0.25]))
    assert precision.max() == pytest.approx(0.75) and recall.max() == pytest.approx(1.0)


def test_f8_needs_a_picture_for_each_cluster() -> None:
    assert all(0 <= score <= 1 for score in f_beta_scores(features(10, 0), features(10, 1), runs=1))
    with pytest.raises(UserError, match=r"found 9 \+ 10 rows, allowed 20"):
        f_beta_scores(features(9, 0), features(10, 1))


# ---- Inception Score --------------------------------------------------------------------------------------------


def test_inception_score_of_known_logits() -> None:
    certain = np.eye(4)[np.arange(40) % 4] * 2000  # sure of itself, all four classes alike; the others underflow to 0
    assert inception_score(certain) == (pytest.approx(4), 0.0)
    score, spread = inception_score(certain[np.argsort(np.arange(40) % 4)], splits=4)  # one class a split
    assert (score, spread) == (pytest.approx(1), pytest.approx(0, abs=1e-12))
    undecided = np.random.default_rng(0).standard_normal((40, 1)) * np.ones((1, 4))
    assert inception_score(undecided)[0] == pytest.approx(1)
    with pytest.raises(UserError, match="splits: found 41 for 40 pictures"):
        inception_score(certain, 41)


def test_inception_score_of_splits_that_are_not_of_one_size() -> None:
    logits = features(11, 3, dim=5)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    scores = []
    for part in (shares[:2], shares[2:5], shares[5:8], shares[8:]):
        scores.append(np.exp(np.mean([sum(row * np.log(row / part.mean(0))) for row in part])))
    assert inception_score(logits, 4) == pytest.approx((np.mean(scores), np.std(scores) * (4 / 3) ** 0.5))


# ---- torch-fidelity's ------------------------------------------------------------------------------------------


def test_all_that_torch_fidelity_has_too_is_equal() -> None:
    golden = json.loads((Path(case.__file__).parent / "metrics.json").read_text())["torch_fidelity"]
    given = case.feature_sets()
    real, fake = given["real"], given["fake"]
    fid = frechet_distance(statistics_of(real), statistics_of(fake))
    assert fid == pytest.approx(golden["frechet_inception_distance"], rel=1e-6)
    assert kid(real, fake) == pytest.approx(golden["kernel_inception_distance_mean"], rel=1e-6)
    assert inception_score(given["logits"])[0] == pytest.approx(golden["inception_score_mean"], rel=1e-6)
    for k in case.PRC_NEIGHBOURS:
        expected, found = golden[f"prc_{k}"], prdc(real, fake, k)
        assert all(found[name] == pytest.approx(expected[name], abs=1e-6) for name in ("precision", "recall"))
    assert golden["prc_3"]["precision"] != golden["prc_3"]["recall"]


# ---- StudioGAN's own --------------------------------------------------------------------------------------------

STUDIOGANS = """
import json, sys, types, numpy as np, torch
sys.modules["tqdm"] = types.SimpleNamespace(tqdm=None)  # progress bars, not installed here
sys.path.insert(0, sys.argv[1] + "/src")
from metrics.F_beta import precision_recall
from metrics.IS import evaluator
given = np.load(sys.argv[2])
np.random.seed(11)
prd = precision_recall(None, "cpu")
curves = [prd.compute_PRD(*prd.cluster_into_bins(given["real"], given["fake"], 20)) for _ in range(10)]
precision, recall = np.mean(curves, axis=0)
f8, inverse = (float(np.max(prd.compute_f_beta(precision, recall, beta=beta))) for beta in (8, 1 / 8))
shares = torch.softmax(torch.tensor(given["logits"]), 1)
scores = {str(n): [float(x) for x in evaluator(None, "cpu").kl_scores(shares, n)] for n in (1, 5)}
print(json.dumps({"f": [f8, inverse], "is": scores}))
"""


@pytest.mark.studiogan
def test_f8_and_inception_score_are_studiogans(tmp_path: Path) -> None:
    """In this interpreter, so that both use one scikit-learn."""
    real, fake, logits = features(400, 0), features(300, 1, shift=0.4), 3 * features(103, 2, dim=12)
    np.savez(tmp_path / "given.npz", real=real, fake=fake, logits=logits)
    command = [sys.executable, "-c", STUDIOGANS, str(find_checkout()), str(tmp_path / "given.npz")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    theirs = json.loads(ran.stdout.replace("NaN", "0.0"))  # the deviation of one split
    assert f_beta_scores(real, fake, seed=11) == pytest.approx(theirs["f"], abs=1e-9)
    for splits in (1, 5):
        assert inception_score(logits, splits) == pytest.approx(theirs["is"][str(splits)], abs=1e-6)


# ---- what has no metric -----------------------------------------------------------------------------------------

GOOD = features(30, 0)
PAIR_METRICS = {
    "prdc": lambda real, fake: prdc(real, fake, 1),
    "prd": lambda real, fake: f_beta_scores(real, fake, runs=1),
}
SINGLE_METRICS = {"frechet": statistics_of, "inception score": inception_score}
METRICS: dict[str, Callable[[np.ndarray], object]] = {
    **SINGLE_METRICS,
    **{f"{name}, real": lambda x, f=f: f(x, GOOD) for name, f in PAIR_METRICS.items()},
    **{f"{name}, fake": lambda x, f=f: f(GOOD, x) for name, f in PAIR_METRICS.items()},
}
BAD = {
    "allowed \\(N, d\\) with N >= 2": GOOD[:1],
    "found 1 rows with NaN or infinity": np.concatenate([GOOD, np.full((1, 6), np.nan)]),
    "found 2 rows with NaN or infinity": np.concatenate([GOOD, np.full((2, 6), np.inf)]),
    "found 30 equal rows": np.repeat(GOOD[:1], 30, axis=0),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("message", BAD)
def test_too_few_broken_and_constant_features_are_refused(metric: str, message: str) -> None:
    assert re.search(message, refusal_of(METRICS[metric], BAD[message]))


def test_one_varying_dimension_is_enough() -> None:
    x = np.zeros((30, 6))
    x[:, 2] = np.arange(30)
    for metric in METRICS.values():
        metric(x)
