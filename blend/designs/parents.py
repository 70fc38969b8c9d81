"""The parents of designs as latents: all pairs of two sets of pictures, or one parent at a time by reference.

In: pictures of both kinds, or references of `design_recipe.py`. Out: latents; inversions on disk are used again.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blend.encoder.model import Encoders, load_encoders
from blend.generator.dial import LatentPairs
from blend.generator.input_pictures import Parents, fit_content, load_folder, load_held_out
from blend.generator.kinds import Kind
from blend.generator.picture_error import picture_errors
from blend.generator.styled_generator import StyledGenerator, label_of
from blend.inversion.cached import STYLES, Inversions, cached_inversions, invert_parents
from blend.inversion.optimise import StepCallback
from harness.config.experiment import Config, finetune_config
from harness.errors import UserError
from harness.images.decode import FORMATS, PictureError, read_file
from harness.images.magic_bytes import other_kind, picture_kind
from harness.messages import log
from harness.storage.atomic import atomic_write
from harness.storage.lru import LruCache

PARENTS_IN_MEMORY = 200  # a few kilobytes each
PROGRESS_EVERY_STEPS = 5  # of a search: each progress picture takes a third of a step
MAX_UPLOAD_BYTES = 25 * 2**20
# Gets steps done and in all, and the best latent so far as a picture, uint8 (H, W, 3), with its error; may raise.
ProgressCallback = Callable[[int, int, np.ndarray, float], None]


# ---- two sets at once -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InvertedPairs:
    """Inverted parents.

    Attributes:
        retuned: the ordinary cars, refined further in the fine-tuned generator; None where not needed.
        tuned_share: how far the style moves an ordinary car's latent towards `retuned`.
    """

    ordinary: Inversions
    retuned: Inversions | None
    concept: Inversions
    tuned_share: float

    def pairs(self, first: list[int], second: list[int]) -> LatentPairs:
        """Ordinary cars `first` with concept cars `second`, row by row."""
        z, y = self.ordinary.z[first], self.ordinary.y
        restyled = None if self.retuned is None else torch.lerp(z, self.retuned.z[first], self.tuned_share)
        return LatentPairs(z, self.concept.z[second], None if y is None else y[first], restyled)

    def baseline_pairs(self, first: list[int], second: list[int]) -> LatentPairs:
        """The same for the baseline, whose only generator is the fine-tuned one."""
        assert self.retuned is not None
        y = self.retuned.y
        return LatentPairs(self.retuned.z[first], self.concept.z[second], None if y is None else y[first])

    def parents(self, first: list[int]) -> np.ndarray:
        """The ordinary parents' pictures, uint8 (N, H, W, 3)."""
        return self.ordinary.targets[first]

    @property
    def facts(self) -> dict[str, Any]:
        """Names of the inversions on disk."""
        found = {"ordinary": self.ordinary, "redrawn": self.retuned, "concept": self.concept}
        return {kind: each.path.stem for kind, each in found.items() if each is not None}


def load_parents(config: Config, generator: StyledGenerator, source: Path, label: str | None = None) -> Parents:
    """The pictures of a folder, or of one file, in the size of this generator. `label`: their class, or a mix."""
    parents = load_folder(source, generator.height, generator.width, config.data.fit)
    return replace(parents, label=label_of(generator, label))


def invert_pairs(
    config: Config, generator: StyledGenerator, ordinary: Parents, concept: Parents, for_baseline: bool = False
) -> InvertedPairs:
    """Latents of both sets of parents. `for_baseline`: with what `baseline_pairs` needs."""
    encoders = load_encoders(config, generator)
    found = invert_parents(config, generator, encoders, ordinary, "ordinary")
    retunes = for_baseline or config.blend.tuned_share > 0
    return InvertedPairs(
        found,
        invert_parents(config, generator, encoders, ordinary, "ordinary", start=found) if retunes else None,
        invert_parents(config, generator, encoders, concept, "concept"),
        config.blend.tuned_share,
    )


def held_out_pairs(config: Config, generator: StyledGenerator, for_baseline: bool = False) -> InvertedPairs:
    """The evaluation pictures of both sets, `inversion.count` of each; `for_baseline` as above."""
    count = config.inversion.count
    sets = load_held_out(config.data, count), load_held_out(finetune_config(config).data, count)
    return invert_pairs(config, generator, *sets, for_baseline)


# ---- one at a time -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InvertedParent:
    """A parent with its latent; tensors (1, z_dim).

    Attributes:
        restyled: the latent at style 1; z itself where the style does not move it.
        y: (1,) its class, where the generator has classes.
        picture, redrawn: uint8 (H, W, 3): as given, and drawn from its latent.
        error, first_error: picture errors of the latent and of the encoder's guess; None for cars drawn by seed.
    """

    z: Tensor
    restyled: Tensor
    y: Tensor | None
    picture: np.ndarray
    redrawn: np.ndarray
    error: float | None = None
    first_error: float | None = None


class ParentStore:
    """`uploads`: folder of files named by the sha256 of their bytes. `encoders`: None = only seeds can be parents."""

    def __init__(self, config: Config, generator: StyledGenerator, encoders: Encoders | None) -> None:
        self.config, self.generator, self.encoders = config, generator, encoders
        self.uploads = generator.folder / "studio" / "uploads"
        self._inverted: LruCache[tuple[str, str, str | None], InvertedParent] = LruCache(PARENTS_IN_MEMORY)
        self._fitting = threading.Lock()
        self._uploaded: LruCache[str, np.ndarray] = LruCache(PARENTS_IN_MEMORY)  # sha256 → fitted picture
        self._median_errors: dict[Kind, float] = {}

    # ---- pictures ----

    @cached_property
    def held_out(self) -> dict[Kind, Parents]:
        """The evaluation pictures of both sets; empty where a set does not exist."""
        count = self.config.inversion.count
        found: dict[Kind, Parents] = {}
        kinds: list[tuple[Kind, Config]] = [("ordinary", self.config), ("concept", finetune_config(self.config))]
        for side, part in kinds:
            try:
                found[side] = load_held_out(part.data, count)
            except UserError:
                found[side] = Parents([], [], np.empty((0, self.generator.height, self.generator.width, 3), np.uint8))
        return found

    def picture(self, side: Kind, reference: str) -> np.ndarray:
        """uint8 (H, W, 3): the parent as given. UserError when it does not exist."""
        kind, _, text = reference.partition("-")
        if kind == "seed":
            return self._drawn(side, int(text), None).picture
        return self._parents(side, reference).pictures[0]

    def keep_upload(self, content: bytes) -> str:
        """Keeps an uploaded picture under the sha256 of its bytes, never under a name of the user's; its reference.
        UserError for an unusable one."""
        if picture_kind(content) is None:
            found = other_kind(content)
            found = "a file that is not a picture" if found == "unknown" else found
            raise UserError(f"upload: found {found}, allowed {', '.join(FORMATS)}; try another file")
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.uploads / sha256
        try:
            self._fitted(sha256, lambda: content)
        except PictureError as error:
            raise UserError(f"upload: {error.reason}; try another picture") from error
        if not path.is_file():
            self.uploads.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
        return f"file-{sha256}"

    def _parents(self, side: Kind, reference: str) -> Parents:
        kind, _, text = reference.partition("-")
        if kind != "file":
            held_out = self.held_out[side]
            if reference not in held_out.names:
                raise UserError(f"{reference}: found no such picture in this run, allowed those of its gallery")
            row = held_out.names.index(reference)
            return Parents([reference], [held_out.sha256s[row]], held_out.pictures[row : row + 1])
        path = self.uploads / text
        if not path.is_file():
            raise UserError("upload: this picture is no longer on this machine; drop it again")
        try:
            return Parents(["upload"], [text], self._fitted(text, lambda: read_file(path))[None])
        except PictureError as error:
            raise UserError(f"upload: {error.reason}; drop it again") from error

    def _fitted(self, sha256: str, read: Callable[[], bytes]) -> np.ndarray:
        """uint8 (H, W, 3) of an upload, decoded once: large ones take seconds. PictureError for an unusable one."""
        picture = self._uploaded.get(sha256)
        if picture is None:
            content, generator = read(), self.generator
            if hashlib.sha256(content).hexdigest() != sha256:
                raise PictureError("damaged", "its file has changed")
            with self._fitting:  # several large ones at once could fill the memory
                picture, note = fit_content(content, generator.height, generator.width, self.config.data.fit)
            if note:
                log(f"upload: {note}")
            self._uploaded.keep(sha256, picture)
        return picture

    # ---- latents ----

    def find(self, side: Kind, reference: str, label: str | None = None) -> InvertedParent | None:
        """The parent if its latent is known: in memory, on disk, or drawn by seed."""
        key = (side, reference, label if side == "ordinary" else None)
        found = self._inverted.get(key)
        if found is None:
            kind, _, text = reference.partition("-")
            found = self._drawn(side, int(text), label) if kind == "seed" else self._cached(side, reference, label)
            if found is not None:
                self._inverted.keep(key, found)
        return found

    def search(self, side: Kind, reference: str, label: str | None, progress: ProgressCallback) -> InvertedParent:
        """Inverts a parent, or finds it."""
        known = self.find(side, reference, label)
        if known is not None:
            return known
        encoders, parents = self._require_encoders(), self._labelled(side, reference, label)
        invert = partial(invert_parents, self.config, self.generator, encoders, parents, side)
        steps = self.config.inversion.steps
        total = steps * (2 if self._has_retuned(side) else 1)
        first = invert(callback=self._callback(parents, STYLES[side], 0, total, progress))
        retuned = None
        if self._has_retuned(side):
            callback = self._callback(parents, 1 - STYLES[side], steps, total, progress)
            retuned = invert(start=first, callback=callback)
        found = self._inverted_parent(first, retuned, 0)
        self._inverted.keep((side, reference, label if side == "ordinary" else None), found)
        return found

    def _has_retuned(self, side: Kind) -> bool:
        """Whether a latent is refined further in the fine-tuned generator, because the style moves it."""
        return side == "ordinary" and self.generator.tuned is not None and self.config.blend.tuned_share > 0

    def _callback(
        self, parents: Parents, style: int, before: int, total: int, progress: ProgressCallback
    ) -> StepCallback:
        def callback(step: int, z: Tensor, values: Tensor, y: Tensor | None) -> None:
            if step % PROGRESS_EVERY_STEPS == 0:
                drawn = self.generator.draw(z, style, y)
                progress(before + step, total, drawn[0], float(picture_errors(parents.pictures, drawn)[0, 0]))

        return callback

    def _require_encoders(self) -> Encoders:
        if self.encoders is None:
            raise UserError("encoder: found none in this run, which reading pictures takes; try `make encoder`")
        return self.encoders

    def _labelled(self, side: Kind, reference: str, label: str | None) -> Parents:
        parents = self._parents(side, reference)
        return replace(parents, label=label_of(self.generator, label)) if side == "ordinary" else parents

    def _cached(self, side: Kind, reference: str, label: str | None) -> InvertedParent | None:
        """A parent that was inverted alone or, where it is of the gallery, with all of it by `make invert`."""
        if self.encoders is None:
            return None
        found = self._cached_row(side, self._labelled(side, reference, label), 0)
        if found is None and not reference.startswith("file-") and label is None:
            gallery = self.held_out[side]
            found = self._cached_row(side, gallery, gallery.names.index(reference))
        return found

    def _cached_row(self, side: Kind, parents: Parents, row: int) -> InvertedParent | None:
        if side == "concept" and self.generator.tuned is None:
            return None
        cached = partial(cached_inversions, self.config, self.generator, self._require_encoders(), parents, side)
        first = cached()
        if first is None or not self._has_retuned(side):
            return None if first is None else self._inverted_parent(first, None, row)
        retuned = cached(start=first)
        return None if retuned is None else self._inverted_parent(first, retuned, row)

    def _inverted_parent(self, first: Inversions, retuned: Inversions | None, row: int) -> InvertedParent:
        rows = slice(row, row + 1)
        z, y = first.latents(rows)
        restyled = z if retuned is None else torch.lerp(z, retuned.z[rows], self.config.blend.tuned_share)
        errors = float(first.error[row]), float(first.first_error[row])
        return InvertedParent(z, restyled, y, first.targets[row], first.refined[row], *errors)

    def median_error(self, side: Kind) -> float | None:
        """Median picture error of the run's gallery, or the mean of metrics.json before the gallery is inverted; None
        without both."""
        parents = self.held_out[side]
        if side not in self._median_errors and self.encoders is not None and parents.names:
            found = cached_inversions(self.config, self.generator, self.encoders, parents, side)
            if found is not None:
                self._median_errors[side] = float(found.error.median())
        measured = self.generator.base.run.read_metrics().get("inversion", {}).get(side)
        mean = measured.get("refined_error") if isinstance(measured, dict) else None
        return self._median_errors.get(side, mean)

    def _drawn(self, side: Kind, seed: int, label: str | None) -> InvertedParent:
        code = label_of(self.generator, label) if side == "ordinary" else None
        z, y = self.generator.draw_by_seed([seed], code)
        style = float(STYLES[side]) if self.generator.tuned is not None else 0.0
        picture = self.generator.draw(z, style, y)[0]
        return InvertedParent(z, z, y, picture, picture)
