"""Designs of one run on request: from a recipe to a picture, its sweep and its measures. For studio and command line.

In: `runs/<name>/`. Out: pictures and figures. A run without a fine-tune, encoder or measures works as far as it can.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from blend.designs.design_recipe import DesignRecipe, Parent
from blend.designs.parents import InvertedParent, ParentStore
from blend.encoder.model import Encoders, encoder_folder, load_encoders
from blend.generator.dial import DialPath, DialPosition, LatentPairs, dial_position, draw_designs
from blend.generator.input_pictures import read_pictures
from blend.generator.kinds import Kind
from blend.generator.styled_generator import StyledGenerator, load_generator
from blend.measures.measures import Measures, load_measures
from harness.checkpoints.chosen_config import changed_config
from harness.config.experiment import Config, base_name, finetune_config
from harness.errors import UserError
from harness.runtime.device import one_thread
from harness.storage.lru import LruCache
from harness.storage.rundir import RunDir

SWEEP_POINTS = 11
PATHS_IN_MEMORY = 64


class NotInverted(Exception):
    """A parent's latent is not known; `ParentStore.search` finds it."""

    def __init__(self, side: Kind, reference: str) -> None:
        self.side, self.reference = side, reference
        super().__init__(f"{side} {reference}")


@dataclass(frozen=True)
class Drawn:
    """A design. `score_range`: lowest and highest futurism of these parents, if it was solved for a futurism."""

    picture: np.ndarray
    position: DialPosition
    score_range: tuple[float, float] | None = None


class DesignSession:
    """Made by `open_session`; several threads may use it.

    Attributes:
        missing: of "finetune", "encoder", "measures", those the run does not have → why, and the command for it.
    """

    def __init__(self, config: Config, generator: StyledGenerator, encoders: Encoders | None, missing: dict[str, str]):
        self.config, self.generator, self.missing = config, generator, missing
        self.parent_store = ParentStore(config, generator, encoders)
        self.measures: Measures | None = None
        self._paths: LruCache[str, DialPath] = LruCache(PATHS_IN_MEMORY)
        self._measures_lock = threading.Lock()

    # ---- preparation ----

    def open_measures(self) -> Measures | None:
        """Fits or loads the measures, once; None where they are missing."""
        with self._measures_lock:
            if self.measures is None and "measures" not in self.missing:
                try:
                    self.measures = load_measures(self.config, self.generator)
                except UserError as error:
                    self.missing["measures"] = str(error)
        return self.measures

    def prepare_styles(self, progress: Callable[[int, int], None]) -> None:
        """Computes the batch-norm statistics of all styles, so that no dial waits for them; `progress` gets the numbers
        of those done and of all, and may raise to stop it."""
        knots = self.generator.knots()
        for count, percent in enumerate(knots):
            progress(count, len(knots))
            self.generator.prepare(percent)
        progress(len(knots), len(knots))

    # ---- designs ----

    def pairs(self, recipe: DesignRecipe) -> LatentPairs:
        """The latents of a recipe, one row. NotInverted for a parent whose latent is not known."""
        space, interpolation = self.generator.latents, self.config.blend.interpolation

        def mixed(latents: list[Tensor], parents: tuple[Parent, ...]) -> Tensor:
            shares = [parent.share for parent in parents]
            return space.truncate(space.average(latents, shares, interpolation), recipe.truncation)

        ordinary = [self._inverted_parent("ordinary", parent, recipe.label) for parent in recipe.ordinary]
        concept = [self._inverted_parent("concept", parent, None) for parent in recipe.concept]
        heaviest = max(range(len(ordinary)), key=lambda number: recipe.ordinary[number].share)
        return LatentPairs(
            mixed([found.z for found in ordinary], recipe.ordinary),
            mixed([found.z for found in concept], recipe.concept) if concept else None,
            ordinary[heaviest].y,
            mixed([found.restyled for found in ordinary], recipe.ordinary),
        )

    def _inverted_parent(self, side: Kind, parent: Parent, label: str | None) -> InvertedParent:
        found = self.parent_store.find(side, parent.reference, label)
        if found is None:
            raise NotInverted(side, parent.reference)
        return found

    def draw(self, recipe: DesignRecipe) -> Drawn:
        with one_thread():
            pairs = self.pairs(recipe)
            score_range = None
            if recipe.futurism is None:
                position = self._position_at(recipe.intensity, recipe.style)
            else:
                position, score_range = self._solved(recipe, recipe.futurism)
            picture = draw_designs(self.generator, pairs, [position], self.config.blend.interpolation)[0]
        return Drawn(picture, position, score_range)

    def sweep(self, recipe: DesignRecipe, points: int = SWEEP_POINTS) -> tuple[list[float], np.ndarray]:
        """(intensities, uint8 (points, H, W, 3)) of a recipe's parents; the style follows unless the recipe sets it."""
        intensities = np.linspace(0, 1, points).round(4).tolist()
        with one_thread():
            pairs, interpolation = self.pairs(recipe), self.config.blend.interpolation
            positions = [self._position_at(t, recipe.style) for t in intensities]
            return intensities, np.stack(
                [draw_designs(self.generator, pairs, [one], interpolation)[0] for one in positions]
            )

    def futurism(self, pictures: np.ndarray) -> list[float] | None:
        """Of uint8 (N, H, W, 3); None while measures are missing or not opened."""
        with one_thread():
            return None if self.measures is None else self.measures.futurism(pictures).tolist()

    def _position_at(self, intensity: float, style: float | None) -> DialPosition:
        return dial_position(intensity, style if self.generator.tuned else 0.0)

    def _solved(self, recipe: DesignRecipe, target: float) -> tuple[DialPosition, tuple[float, float]]:
        """The position with this futurism, or with the nearest that these parents reach."""
        measures = self.open_measures()
        if measures is None or self.generator.tuned is None:
            raise UserError(self.missing.get("measures") or self.missing["finetune"])
        key = replace(recipe, intensity=0.0, style=None, futurism=None).sha256
        path = self._paths.get(key)
        if path is None:
            settings = self.config.blend
            path = DialPath(
                self.generator, self.pairs(recipe), measures.futurism, settings.latent_share, settings.interpolation
            )
            self._paths.keep(key, path)
        low, high = float(path.scores.min()), float(path.scores.max())
        found = path.solve(np.array([min(max(target, low), high)])).positions[0]
        assert found is not None, (low, high, target)  # the path goes from its lowest to its highest score
        return found, (low, high)

    # ---- figures ----

    def measure(self, recipe: DesignRecipe, picture: np.ndarray) -> dict[str, Any] | None:
        """`Measures.measure` of a design; None without measures."""
        measures = self.open_measures()
        if measures is None:
            return None
        with one_thread():
            return measures.measure(picture[None], self.origin(recipe)[None])[0]

    def origin(self, recipe: DesignRecipe) -> np.ndarray:
        """The picture that a design's identity is measured against: its ordinary parent as given, or the mix of several
        as the base run draws it."""
        if len(recipe.ordinary) == 1:
            return self._inverted_parent("ordinary", recipe.ordinary[0], recipe.label).picture
        pairs = self.pairs(recipe)
        return self.generator.draw(pairs.ordinary, 0.0, pairs.y)[0]

    def training_picture(self, set_name: str, row: int) -> np.ndarray | None:
        """uint8 (H, W, 3): row of a training set; None where the set does not exist."""
        tuned = self.generator.tuned.config if self.generator.tuned else finetune_config(self.config)
        for data in (self.generator.base.config.data, tuned.data):
            if data.set == set_name:
                return read_pictures(data.hdf5_path("train"), [row]).get(row)
        return None


def open_session(name: str, root: Path = Path("runs"), overrides: Iterable[str] = ()) -> DesignSession:
    """UserError when there is no such run, it has no checkpoint, or an override changes what it was trained with."""
    config = changed_config(RunDir.existing(name, root), overrides)
    if base_name(config) != name:
        raise UserError(
            f"RUN: found {name}, which was fine-tuned from {base_name(config)}, allowed its base run; "
            f"try RUN={base_name(config)}"
        )
    generator, missing, encoders = load_generator(config, need_tuned=False, root=root), {}, None
    config_arg = f"RUN={name}"
    if generator.tuned is None:
        missing["finetune"] = f"This run was not fine-tuned on concept cars yet; try `make finetune {config_arg}`"
        missing["measures"] = f"Measures of futurism need concept cars; try `make finetune {config_arg}`"
    try:
        encoders = load_encoders(config, generator)
    except UserError as error:
        yet = f"This run cannot read pictures yet, only draw by seed; try `make encoder {config_arg}`"
        has_one = any(encoder_folder(generator).glob("checkpoints/*"))
        missing["encoder"] = f"This run's encoder cannot be used: {error}" if has_one else yet
    return DesignSession(config, generator, encoders, missing)


def picture_sha256(picture: np.ndarray) -> str:
    """Of uint8 (H, W, 3): its shape and its pixels."""
    return hashlib.sha256(f"{picture.shape}".encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()
