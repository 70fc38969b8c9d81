"""The measures of a design: futurism, identity, novelty.

In: the packed sets of a run and of its fine-tuned run. Out: one dict a design. Fits and features are cached in
runs/<base>/measures/ under the hashes of everything they depend on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter

from blend.generator.input_pictures import check_size
from blend.generator.styled_generator import StyledGenerator
from blend.measures.identity import Identity, fit_identity
from blend.measures.novelty import FeatureSpace, Novelty, ReferenceSet, discriminator_space, find_nearest, reader_space
from blend.measures.probe import FuturismProbe, TrainValid, background_auc, fit_probe
from harness.config.experiment import Config, Data, finetune_config
from harness.errors import UserError
from harness.features import Featurizer, load_featurizer
from harness.storage.atomic import atomic_write
from harness.storage.cache import Arrays, cached
from harness.storage.hdf5 import spread_rows
from harness.storage.json_files import read_json
from harness.storage.splits import NEEDS_HELD_OUT, annotate_figures, open_evaluation_rows, open_training_rows

PROBE_PICTURES = 2000  # of each kind, at most
MIN_PICTURES = 2  # of a kind, held out: a distance needs two
SETS_FILE = "sets.json"
VERSION = 1  # of the cache: raise it when the same pictures give other numbers


class SetFacts(BaseModel):
    """Of training pictures and evaluation pictures: hashes, counts, and the latter's `PackedRows.note`."""

    sha256s: tuple[str, str]
    counts: tuple[int, int]
    note: str


@dataclass(frozen=True)
class TrainingSet:
    data: Data
    facts: SetFacts

    def read(self) -> TrainValid:
        """All its pictures. UserError where the packed set does not exist."""
        with open_training_rows(self.data) as train, open_evaluation_rows(self.data) as valid:
            return TrainValid(train.read(), valid.read())


SET_FACTS = TypeAdapter(dict[str, SetFacts])


class Measures:
    """Made by `load_measures`. `figures`: how good the measures themselves are."""

    def __init__(
        self,
        featurizer: Featurizer,
        probe: FuturismProbe,
        identity: Identity,
        novelty: Novelty,
        figures: dict[str, Any],
    ) -> None:
        self.featurizer, self.probe, self.identity, self.novelty = featurizer, probe, identity, novelty
        self.figures = figures

    def futurism(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3) → float64 (N,): 0 and 100 are the medians of held-out ordinary and concept pictures."""
        return self.probe.score(self.featurizer(pictures))

    def measure(self, designs: np.ndarray, parents: np.ndarray | None = None) -> list[dict[str, Any]]:
        """Of designs and the ordinary parent of each, or None; both uint8 (N, H, W, 3).

        Returns for each `futurism`, `identity` (0 to 100, None without parents) and `novelty` (see `Novelty.check`).
        """
        assert parents is None or len(parents) == len(designs), (len(designs), len(parents))
        features = self.featurizer(designs)
        futurism = self.probe.score(features).tolist()
        identity = [None] * len(designs)
        if parents is not None:
            identity = self.identity.score(features, self.featurizer(parents)).tolist()
        rows = zip(futurism, identity, self.novelty.check(designs), strict=True)
        return [{"futurism": f, "identity": i, "novelty": n} for f, i, n in rows]


def load_measures(config: Config, generator: StyledGenerator) -> Measures:
    """The measures of an experiment's designs, fitted or from the cache. Writes metrics.json["measures"].

    Cached parts do not need the packed sets. UserError when one is missing otherwise, or does not belong to the
    generator.
    """
    tuned = generator.tuned.config if generator.tuned else finetune_config(config)
    folder = generator.folder / "measures"
    sets = [_open_set(data, generator, folder / SETS_FILE) for data in (generator.base.config.data, tuned.data)]
    if sets[0].facts.sha256s == sets[1].facts.sha256s:
        raise UserError(
            f"finetune.override.data: found the same set {sets[0].data.set}, allowed one of concept cars, to measure "
            "futurism with; try another data.set there"
        )
    featurizer = load_featurizer()
    notes = [part.facts.note for part in sets]
    left_out = NEEDS_HELD_OUT if any(notes) else ""
    spaces = [reader_space(featurizer)]
    if not left_out:  # only novelty uses it
        spaces.append(discriminator_space(generator.base.discriminator))
    references, features = zip(*(_reference_set(space, sets, folder) for space in spaces), strict=True)
    ordinary, concept = (_subsampled(part) for part in features[0])
    probe = fit_probe(ordinary, concept)
    identity = fit_identity(ordinary, concept, probe)
    counts = [(part.data.set, part.facts.counts[0]) for part in sets]
    novelty = Novelty(references, counts, config.blend.warn_percentile, left_out)
    figures = {
        "probe_auc": probe.auc,
        "background_auc": _background_auc(featurizer, sets, folder),
        **novelty.warn_rates(),
        "training_pictures": sum(count for _, count in counts),
        "held_out_pictures": sum(part.facts.counts[1] for part in sets if not part.facts.note),
    }
    figures = annotate_figures(figures, notes, ["novelty"])
    if generator.base.run.read_metrics().get("measures") != figures:
        generator.base.run.write_metrics("measures", figures)
    facts = {part.data.set: part.facts.model_dump() for part in sets}
    atomic_write(folder / SETS_FILE, json.dumps(facts, indent=1) + "\n")
    return Measures(featurizer, probe, identity, novelty, figures)


def _open_set(data: Data, generator: StyledGenerator, kept_facts: Path) -> TrainingSet:
    """A packed set or, where it does not exist, its facts in the file `kept_facts`."""
    if not data.hdf5_path("train").is_file():
        remedy = "remove it, and make the sets again with `make dataset`"
        if facts := (read_json(kept_facts, remedy, SET_FACTS) or {}).get(data.set):
            return TrainingSet(data, SetFacts.model_validate(facts))
    with open_training_rows(data) as train, open_evaluation_rows(data) as valid:
        for rows in (train, valid):
            check_size(rows, generator.height, generator.width)
            if rows.count < MIN_PICTURES:
                raise UserError(
                    f"{rows.packed.path}: found {rows.count} picture{'s' * (rows.count != 1)} to measure with, allowed "
                    f"{MIN_PICTURES} or more; try more pictures, or a larger data.valid_fraction"
                )
        counts = train.count, valid.count
        return TrainingSet(data, SetFacts(sha256s=(train.sha256, valid.sha256), counts=counts, note=valid.note))


# ---- cached parts -----------------------------------------------------------------------------------------------


def _reference_set(
    space: FeatureSpace, sets: Sequence[TrainingSet], folder: Path
) -> tuple[ReferenceSet, list[TrainValid]]:
    """Reference features of all sets in a space, and those of each set."""

    def compute() -> Arrays:
        pictures = [part.read() for part in sets]
        training = np.concatenate([space.features(part.train) for part in pictures])
        held_out = np.concatenate([part.valid for part in pictures])
        near = find_nearest(space, held_out, training)
        return {
            "training": training,
            "held_out": space.features(held_out),
            "distances": near.distances,
            "relative": near.relative,
        }

    arrays = _cached(folder, space.name, space.sha256, sets, compute)
    parts = [
        np.split(arrays[key], np.cumsum([part.facts.counts[split] for part in sets])[:-1])
        for split, key in enumerate(("training", "held_out"))
    ]
    reference = ReferenceSet(space, arrays["training"], arrays["distances"], arrays["relative"])
    return reference, [TrainValid(*splits) for splits in zip(*parts, strict=True)]


def _background_auc(featurizer: Featurizer, sets: Sequence[TrainingSet], folder: Path) -> float:
    def compute() -> Arrays:
        ordinary, concept = (_subsampled(part.read()) for part in sets)
        return {"auc": np.array([background_auc(featurizer, ordinary, concept)])}

    return float(_cached(folder, "background", featurizer.sha256, sets, compute)["auc"][0])


def _cached(
    folder: Path, name: str, source_sha256: str, sets: Sequence[TrainingSet], make: Callable[[], Arrays]
) -> Arrays:
    key = {"version": VERSION, "made_from": source_sha256, "sets": [part.facts.sha256s for part in sets]}
    return cached(folder / f"{name}.safetensors", key, make)


# ---- parts of sets ----------------------------------------------------------------------------------------------


def _subsampled(splits: TrainValid) -> TrainValid:
    """At most PROBE_PICTURES of each, evenly spread."""
    return TrainValid(*(part[spread_rows(len(part), PROBE_PICTURES)] for part in (splits.train, splits.valid)))
