"""Evaluates a checkpoint: generated and real pictures compared through a feature extractor or the factor reader.

In: a run folder with a checkpoint, and the packed sets of its config. Out: nested figures, stored in metrics.json(l).
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.checkpoints import sampling
from harness.checkpoints.checkpoint import read_meta
from harness.checkpoints.load import LoadedCheckpoint, find_checkpoint, load_checkpoint, load_sampler
from harness.checkpoints.origin import check_training_set
from harness.config.experiment import Data, Evaluate
from harness.errors import UserError
from harness.features import Reader, load_featurizer, load_reader
from harness.metrics.class_evaluate import classes_to_text, evaluate_classes
from harness.metrics.distances import kid, nearest_distances, pairwise_distances
from harness.metrics.f_beta import f_beta_scores
from harness.metrics.frechet import frechet_distance, frechet_name, statistics_of
from harness.metrics.inception_score import inception_score
from harness.metrics.precision_recall import PRDC, prdc
from harness.metrics.real_features import RealFeatures, RealKey, load_real_features
from harness.networks.autocast import full_precision
from harness.runtime.rng import RandomStreams
from harness.storage.hdf5 import spread_rows
from harness.storage.rundir import RunDir
from harness.storage.splits import PackedRows, annotate_figures, open_evaluation_rows, open_training_rows

SEED = 0  # of the latents, the same for every checkpoint


class EvaluationStopped(Exception):
    """A signal arrived during an evaluation, which has no result."""


def evaluate_run(
    run: str | RunDir,
    settings: Evaluate | None = None,
    checkpoint: str | None = None,
    root: Path = Path("runs"),
    sample_passes: int | None = None,
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run, and stores the figures in the run.

    Args:
        run: its name, or its folder.
        settings: None = those of the run's config.
        checkpoint: None = the newest, `best`, or the name of a folder under checkpoints/.
        sample_passes: None = as the checkpoint's config says.
    """
    rundir = RunDir.existing(run, root) if isinstance(run, str) else run
    config = rundir.read_config()
    loaded = load_checkpoint(find_checkpoint(rundir.checkpoints, checkpoint)).with_sample_passes(sample_passes)
    check_training_set(rundir, config.data, loaded.meta)
    device = next(loaded.generator.parameters()).device
    settings = settings or config.evaluate
    try:
        evaluator = Evaluator(config.data, settings, device)
        evaluation = {"run": rundir.path.name, **evaluator.evaluate(loaded)}
        if loaded.num_classes > 1:
            folder = rundir.path / "brands"
            with full_precision():
                evaluation["brands"] = evaluate_classes(
                    loaded, config.data, settings, evaluator.featurizer, SEED, folder
                )
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"evaluate.batch_size: out of memory on {device} with {settings.batch_size} pictures at once, "
            f"try --set evaluate.batch_size={max(2, settings.batch_size // 2)}"
        ) from error
    rundir.write_metrics("evaluate", evaluation)
    return evaluation


class Evaluator:
    """Compares checkpoints with one set of real pictures, whose features are computed once.

    Args:
        data: section of the real pictures' set.
        device: where features are computed.
    """

    def __init__(self, data: Data, settings: Evaluate, device: torch.device) -> None:
        self.data, self.settings, self.device = data, settings, device
        with self._open_real() as real:
            self.note = real.note
            self.featurizer = load_featurizer(settings.features, str(device))
            self.key = RealKey(
                real.sha256, real.split, self.featurizer.name, self.featurizer.sha256, self.featurizer.resizer,
                real.count,
            )  # fmt: skip
        self._real: RealFeatures | UserError | None = None

    def evaluate(
        self, loaded: LoadedCheckpoint, seed: int = SEED, stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """`figures` by name, `left_out` (name → reason), and all that they depend on.

        Raises EvaluationStopped soon after `stopped` turns true.
        """
        began, settings = time.monotonic(), self.settings
        count = settings.count or self.key.count
        with full_precision():
            sampler = load_sampler(loaded)
            fake = np.concatenate(list(self._drawn_features(sampler, count, seed, stopped)))
            self._real = self._real or self._read_real(stopped)
            figures, left_out = self._compare(fake, stopped)
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        evaluation = {
            "checkpoint": loaded.folder.name,
            "step": loaded.step,
            "checkpoint_sha256": loaded.sha256,
            "figures": figures,
            "left_out": left_out,
            "remark": self._remark(count),
            "extractor": self.featurizer.name,
            "extractor_sha256": self.featurizer.sha256,
            "resizer": self.featurizer.resizer,
            "set": self.data.set,
            "split": self.key.split,
            "data_sha256": self.key.set_sha256,
            "real_count": self.key.count,
            "count": count,
            "batch_size": settings.batch_size,
            "neighbours": settings.neighbours,
            "seed": seed,
            "sample_passes": sampler.passes,
            "batch_statistics": f"standing, {sampling.STANDING_BATCHES} x {sampling.STANDING_BATCH_SIZE} pictures",
            "device": name,
            "seconds": round(time.monotonic() - began, 2),
        }
        return {**evaluation, **annotate_figures({}, [self.note])}

    def _remark(self, count: int) -> str | None:
        """Caveats of the figures."""
        remarks = []
        if self.featurizer.name not in ("reader", "inception"):
            remarks.append("not a FID: these are not the weights that published figures are made with")
        if (fewest := min(count, self.key.count)) < self.featurizer.dim:
            remarks.append(f"a rough figure: {fewest} pictures are fewer than the {self.featurizer.dim} features")
        return "; ".join(remarks) or None

    def _open_real(self) -> PackedRows:
        return open_evaluation_rows(self.data, self.settings.split)

    def _drawn_features(
        self, sampler: sampling.Sampler, count: int, seed: int, stopped: Callable[[], bool]
    ) -> Iterator[np.ndarray]:
        """Features (B, d) by batch, so that the pictures need not fit into memory."""
        size = self.settings.batch_size
        z, y = sampler.generator.latents.draw(RandomStreams(seed, torch.device("cpu")), "evaluate", 0, count)
        for start in range(0, count, size):
            _check_stopped(stopped)
            part = slice(start, start + size)
            yield self.featurizer(sampler.draw(z[part], None if y is None else y[part], batch_size=size), size)

    def _read_real(self, stopped: Callable[[], bool]) -> RealFeatures | UserError:
        """The real pictures' features, or the error (too few pictures, for example)."""
        try:
            return load_real_features(self.key, lambda: self._read_features(stopped))
        except UserError as error:
            return error

    def _read_features(self, stopped: Callable[[], bool]) -> np.ndarray:
        """Features (N, d) of all real pictures."""
        parts = []
        with self._open_real() as real:
            for start in range(0, real.count, self.settings.batch_size):
                _check_stopped(stopped)
                rows = np.arange(start, min(start + self.settings.batch_size, real.count))
                parts.append(self.featurizer(real.read(rows), self.settings.batch_size))
        return np.concatenate(parts)

    def _compare(self, fake: np.ndarray, stopped: Callable[[], bool]) -> tuple[dict[str, float], dict[str, str]]:
        """Figures by name, and the reasons of missing ones by name."""
        name, k = self.featurizer.name, self.settings.neighbours
        figures: dict[str, float] = {}
        left_out: dict[str, str] = {}

        def attempt(names: list[str], compute: Callable[[], Iterable[float]]) -> None:
            _check_stopped(stopped)
            try:
                figures.update(zip(names, compute(), strict=True))
            except UserError as error:
                left_out.update(dict.fromkeys(names, str(error)))

        def real() -> RealFeatures:
            if isinstance(self._real, UserError):
                raise self._real
            assert self._real is not None
            return self._real

        attempt([frechet_name(name)], lambda: (frechet_distance(real().statistics, statistics_of(fake)),))
        attempt([f"kid_{name}"], lambda: (kid(fake, real().features),))
        if (logits := self.featurizer.logits(fake)) is not None:
            attempt([f"is_{name}"], lambda: (inception_score(logits)[0],))
        attempt([f"f8_{name}", f"f1_8_{name}"], lambda: f_beta_scores(real().features, fake))
        attempt([f"{part}_{name}" for part in PRDC], lambda: prdc(real().features, fake, k).values())
        return figures, left_out


def _check_stopped(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise EvaluationStopped


def evaluation_to_text(evaluation: dict[str, Any]) -> str:
    """The text of `make evaluate`: what was compared, a line per figure, missing figures with reasons."""
    figures, left_out = evaluation["figures"], evaluation["left_out"]
    width = max(map(len, [*figures, *left_out]))
    lines = [
        f"{evaluation['run']}, {evaluation['checkpoint']}: {evaluation['count']:,} drawn pictures compared with "
        f"{evaluation['real_count']:,} real ones ({evaluation['split']} of {evaluation['set']}), "
        f"features by {evaluation['extractor']}, {evaluation['seconds']:.0f} s on {evaluation['device']}",
        *(f"  {name:<{width}}  {value:12.4f}" for name, value in figures.items()),
        *(f"  {name:<{width}}  left out: {reason}" for name, reason in left_out.items()),
    ]
    lines += [text for text in (evaluation["remark"], evaluation.get("measured_on")) if text]
    return "\n".join([*lines, classes_to_text(evaluation["brands"])] if "brands" in evaluation else lines)


# ---- evaluation with the factor reader --------------------------------------------------------------------------


def evaluate_with_reader(name: str, count: int = 500, seed: int = 0, root: Path = Path("runs")) -> dict[str, Any]:
    """Figures of `count` samples of the run's newest checkpoint, and of held-out real pictures (a sample of the
    training pictures if there are none)."""
    rundir, reader = RunDir.existing(name, root), load_reader()
    folder = find_checkpoint(rundir.checkpoints)
    config = rundir.read_config()
    check_training_set(rundir, config.data, read_meta(folder))
    with open_evaluation_rows(config.data) as packed:
        held_out, note = _read_spread(packed, count), packed.note
    with open_training_rows(config.data) as packed:
        train = _read_spread(packed, count)
    samples = sample_with_labels(folder, count, seed)[0]
    figures = {
        "run": name,
        "step": read_meta(folder)["step"],
        "reader_sha256": reader.sha256,
        "samples": picture_figures(reader, samples, held_out),
        # The ideal of a generator that reproduces the training pictures.
        "training_pictures": picture_figures(reader, train, held_out),
        "held_out_pictures": picture_figures(reader, held_out),
    }
    figures = annotate_figures(figures, [note])
    rundir.write_metrics("reader", figures)
    return figures


def sample_with_labels(folder: Path, count: int, seed: int = SEED) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples of a checkpoint, uint8 (count, H, W, 3), and their classes int64 (count,); None if unconditional."""
    loaded = load_checkpoint(folder)
    z, y = loaded.generator.latents.draw(RandomStreams(seed, torch.device("cpu")), "evaluate", 0, count)
    return load_sampler(loaded).draw(z, y), None if y is None else y.numpy()


def picture_figures(reader: Reader, pictures: np.ndarray, real: np.ndarray | None = None) -> dict[str, Any]:
    """Shares, means and distances of uint8 (N, H, W, 3), and KID against `real` if given."""
    seen, features = reader.read(pictures), reader.featurizer(pictures)
    pairs, nearest = pairwise_distances(features), nearest_distances(features)
    figures = {
        "pictures": len(pictures),
        "accepted": float((seen["car_score"] >= reader.threshold).mean()),
        "futurism": float(seen["futurism"].mean()),
        "futurism_std": float(seen["futurism"].std()),
        "pair_distance_median": float(np.median(pairs)),
        "pair_distance_p05": float(np.quantile(pairs, 0.05)),
        "nearest_distance_median": float(np.median(nearest)),  # depends on N: compare equal numbers
    }
    if real is not None:
        figures["kid"] = kid(features, reader.featurizer(real))
    return figures


def _read_spread(packed: PackedRows, count: int) -> np.ndarray:
    """Up to `count` of these pictures, evenly spread: uint8 (N, H, W, 3)."""
    return packed.read(spread_rows(packed.count, count))
