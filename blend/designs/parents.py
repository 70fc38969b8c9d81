"""The parents of designs as latents: two sets of them, any of which may be paired, or one by one and by reference.

In: pictures of both kinds, or references of `design_recipe.py`. Out: latents; what has been inverted before is found on
disk.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blend.designs.seeds import DESIGN_SEEDS
from blend.encoder.model import Encoders, load_encoders
from blend.generator.dial import LatentPairs
from blend.generator.input_pictures import Parents, fit_content, load_folder, load_held_out
from blend.generator.kinds import Kind
from blend.generator.styled_generator import StyledGenerator, label_of
from blend.inversion.cached import STYLES, Inversions, invert_parents, kept_inversions
from blend.inversion.figures import picture_errors
from blend.inversion.optimise import Watch
from harness.config.experiment import Config, finetune_config
from harness.errors import UserError
from harness.images.decode import FORMATS, PictureError, read_file
from harness.images.magic_bytes import other_kind, picture_kind
from harness.messages import log
from harness.storage.atomic import atomic_write
from harness.storage.lru import LruCache

KEPT_IN_MEMORY = 200  # a few kilobytes each
TOLD_EVERY_STEPS = 5  # of a search: what is told is drawn, which takes a third of a step
MAX_UPLOAD_BYTES = 25 * 2**20
# A search under way: steps done, of how many, the best so far as drawn, uint8 (H, W, 3), and its picture error.
Tell = Callable[[int, int, np.ndarray, float], None]


# ---- two sets at once -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InvertedPairs:
    """Inverted parents.

    Attributes:
        redrawn: the ordinary cars once more, refined in the fine-tuned generator from where they were. None where
            nothing needs them.
        tuned_share: how far the style takes an ordinary car's latent towards `redrawn`.
    """

    ordinary: Inversions
    redrawn: Inversions | None
    concept: Inversions
    tuned_share: float

    def pairs(self, first: list[int], second: list[int]) -> LatentPairs:
        """Ordinary cars `first` with concept cars `second`, row by row."""
        z, y = self.ordinary.z[first], self.ordinary.y
        restyled = None if self.redrawn is None else torch.lerp(z, self.redrawn.z[first], self.tuned_share)
        return LatentPairs(z, self.concept.z[second], None if y is None else y[first], restyled)

    def baseline_pairs(self, first: list[int], second: list[int]) -> LatentPairs:
        """The same as the first seed has them: inverted in the fine-tuned generator, its only one."""
        assert self.redrawn is not None
        y = self.redrawn.y
        return LatentPairs(self.redrawn.z[first], self.concept.z[second], None if y is None else y[first])

    def parents(self, first: list[int]) -> np.ndarray:
        """The ordinary parents' pictures, uint8 (N, H, W, 3)."""
        return self.ordinary.targets[first]

    @property
    def facts(self) -> dict[str, Any]:
        """Names what these latents are."""
        found = {"ordinary": self.ordinary, "redrawn": self.redrawn, "concept": self.concept}
        return {kind: each.path.stem for kind, each in found.items() if each is not None}


def load_parents(config: Config, generator: StyledGenerator, source: Path, label: str | None = None) -> Parents:
    """The pictures of a folder, or of one file, as this generator draws. `label`: their class, or a mix."""
    parents = load_folder(source, generator.height, generator.width, config.data.fit)
    return replace(parents, label=label_of(generator, label))


def invert_pairs(
    config: Config, generator: StyledGenerator, ordinary: Parents, concept: Parents, for_baseline: bool = False
) -> InvertedPairs:
    """Latents of both sets of parents, found anew or on disk. `for_baseline`: with all that `baseline_pairs` needs."""
    encoders = load_encoders(config, generator)
    found = invert_parents(config, generator, encoders, ordinary, "ordinary")
    redraws = for_baseline or config.blend.tuned_share > 0
    return InvertedPairs(
        found,
        invert_parents(config, generator, encoders, ordinary, "ordinary", start=found) if redraws else None,
        invert_parents(config, generator, encoders, concept, "concept"),
        config.blend.tuned_share,
    )


def held_out_pairs(config: Config, generator: StyledGenerator, for_baseline: bool = False) -> InvertedPairs:
    """The pictures of both sets that measures are taken on, `inversion.count` of each; `for_baseline` as above."""
    count = config.inversion.count
    sets = load_held_out(config.data, count), load_held_out(finetune_config(config).data, count)
    return invert_pairs(config, generator, *sets, for_baseline)


# ---- one by one -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InvertedParent:
    """A parent whose latent is known; tensors (1, z_dim).

    Attributes:
        restyled: where the style takes an ordinary car's latent; of others, z itself.
        y: (1,) its class, where the generator has classes.
        picture, redrawn: uint8 (H, W, 3): as it was given, and as its generator draws its latent.
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
        self._inverted: LruCache[tuple[str, str, str | None], InvertedParent] = LruCache(KEPT_IN_MEMORY)
        self._fitting = threading.Lock()
        self._uploaded: LruCache[str, np.ndarray] = LruCache(KEPT_IN_MEMORY)  # by sha256, as they are fitted
        self._usual_errors: dict[Kind, float] = {}

    # ---- pictures ----

    @cached_property
    def held_out(self) -> dict[Kind, Parents]:
        """Pictures of both sets that measures are taken on; empty where a set is not at hand."""
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
        """uint8 (H, W, 3): the parent as it was given. UserError when it is not there."""
        kind, _, text = reference.partition("-")
        if kind == "seed":
            return self._drawn(side, int(text), None).picture
        parents = self._parents(side, reference)
        return parents.pictures[0]

    def keep_upload(self, content: bytes) -> str:
        """The reference of a picture that somebody dropped, kept under the sha256 of its bytes: no name of theirs is
        used. UserError for what cannot be used."""
        if picture_kind(content) is None:
            allowed = f"allowed {', '.join(FORMATS)}"
            raise UserError(
                f"upload: found {other_kind(content)}, {allowed}; save it as one of these and drop it again"
            )
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
                raise UserError(f"{reference}: found no such picture of this run, allowed those of its gallery")
            row = held_out.names.index(reference)
            return Parents([reference], [held_out.sha256s[row]], held_out.pictures[row : row + 1])
        path = self.uploads / text
        if not path.is_file():
            raise UserError("upload: this picture is not on this machine (any more); drop it once more")
        try:
            return Parents(["upload"], [text], self._fitted(text, lambda: read_file(path))[None])
        except PictureError as error:
            raise UserError(f"upload: {error.reason}; drop it once more") from error

    def _fitted(self, sha256: str, read: Callable[[], bytes]) -> np.ndarray:
        """uint8 (H, W, 3) of an upload, decoded once: large ones take seconds. PictureError for what is refused."""
        picture = self._uploaded.get(sha256)
        if picture is None:
            content, generator = read(), self.generator
            if hashlib.sha256(content).hexdigest() != sha256:
                raise PictureError("damaged", "its file has changed")
            with self._fitting:  # one at a time: many large ones would fill the memory
                picture, note = fit_content(content, generator.height, generator.width, self.config.data.fit)
            if note:
                log(f"upload: {note}")
            self._uploaded.keep(sha256, picture)
        return picture

    # ---- latents ----

    def find(self, side: Kind, reference: str, label: str | None = None) -> InvertedParent | None:
        """The parent, if nothing has to be searched for: in memory, on disk, or drawn by seed."""
        key = (side, reference, label if side == "ordinary" else None)
        found = self._inverted.get(key)
        if found is None:
            kind, _, text = reference.partition("-")
            found = self._drawn(side, int(text), label) if kind == "seed" else self._kept(side, reference, label)
            if found is not None:
                self._inverted.keep(key, found)
        return found

    def search(self, side: Kind, reference: str, label: str | None, tell: Tell) -> InvertedParent:
        """Inverts a parent, or finds it. `tell` hears how it goes, and may raise to end it."""
        known = self.find(side, reference, label)
        if known is not None:
            return known
        encoders, parents = self._needed_encoders(), self._labelled(side, reference, label)
        whole = self.config.inversion.steps
        twice = self._searches_twice(side)
        watch = self._watch(parents, STYLES[side], 0, whole * (1 + twice), tell)
        first = invert_parents(self.config, self.generator, encoders, parents, side, watch=watch)
        second = None
        if twice:
            watch = self._watch(parents, 1 - STYLES[side], whole, 2 * whole, tell)
            second = invert_parents(self.config, self.generator, encoders, parents, side, start=first, watch=watch)
        found = self._inverted_parent(first, second, 0)
        self._inverted.keep((side, reference, label if side == "ordinary" else None), found)
        return found

    def _searches_twice(self, side: Kind) -> bool:
        """An ordinary car once more in the fine-tuned generator, where the style takes its latent there."""
        return side == "ordinary" and self.generator.tuned is not None and self.config.blend.tuned_share > 0

    def _watch(self, parents: Parents, style: int, before: int, of: int, tell: Tell) -> Watch:
        def watch(step: int, z: Tensor, values: Tensor, y: Tensor | None) -> None:
            if step % TOLD_EVERY_STEPS == 0:
                drawn = self.generator.draw(z, style, y)
                tell(before + step, of, drawn[0], float(picture_errors(parents.pictures, drawn)[0, 0]))

        return watch

    def _needed_encoders(self) -> Encoders:
        if self.encoders is None:
            raise UserError("encoder: this run has none, so pictures cannot be read; try `make encoder`")
        return self.encoders

    def _labelled(self, side: Kind, reference: str, label: str | None) -> Parents:
        parents = self._parents(side, reference)
        return replace(parents, label=label_of(self.generator, label)) if side == "ordinary" else parents

    def _kept(self, side: Kind, reference: str, label: str | None) -> InvertedParent | None:
        if self.encoders is None:
            return None
        alone = self._kept_rows(side, self._labelled(side, reference, label))
        if alone is not None or reference.startswith("file-") or label is not None:
            return None if alone is None else self._inverted_parent(*alone, 0)
        together = self._kept_rows(side, self.held_out[side])  # as `make invert` and `make measure` leave them
        return (
            None if together is None else self._inverted_parent(*together, self.held_out[side].names.index(reference))
        )

    def _kept_rows(self, side: Kind, parents: Parents) -> tuple[Inversions, Inversions | None] | None:
        at = self.config, self.generator, self._needed_encoders(), parents, side
        if side == "concept" and self.generator.tuned is None:
            return None
        first = kept_inversions(*at)
        if first is None or not self._searches_twice(side):
            return None if first is None else (first, None)
        second = kept_inversions(*at, start=first)
        return None if second is None else (first, second)

    def _inverted_parent(self, first: Inversions, second: Inversions | None, row: int) -> InvertedParent:
        rows = slice(row, row + 1)
        z, y = first.latents(rows)
        restyled = z if second is None else torch.lerp(z, second.z[rows], self.config.blend.tuned_share)
        errors = float(first.error[row]), float(first.first_error[row])
        return InvertedParent(z, restyled, y, first.targets[row], first.refined[row], *errors)

    def usual_error(self, side: Kind) -> float | None:
        """Median picture error of the run's gallery, where `make invert` or `make measure` has redrawn it: what another
        picture's can be held against."""
        parents = self.held_out[side]
        if side not in self._usual_errors and self.encoders is not None and parents.names:
            kept = kept_inversions(self.config, self.generator, self.encoders, parents, side)
            if kept is not None:
                self._usual_errors[side] = float(kept.error.median())
        return self._usual_errors.get(side)

    def _drawn(self, side: Kind, seed: int, label: str | None) -> InvertedParent:
        code = label_of(self.generator, label) if side == "ordinary" else None
        z, y = self.generator.draw_by_seed(DESIGN_SEEDS, [seed], code)
        style = float(STYLES[side]) if self.generator.tuned is not None else 0.0
        picture = self.generator.draw(z, style, y)[0]
        return InvertedParent(z, z, y, picture, picture)
