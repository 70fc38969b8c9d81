"""Parents of designs as latents: ordinary and concept cars, any of which may be coupled.

In: pictures of both kinds. Out: pairs of latents to mix.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from blend.encoder.model import load_encoder
from blend.generator.dial import Pairs
from blend.generator.input_pictures import Parents, load_held_out
from blend.generator.styled_generator import StyledGenerator
from blend.inversion.cached import Inversions, invert_parents
from harness.config.experiment import Config, finetune_config


@dataclass(frozen=True)
class Couples:
    """Inverted parents.

    Attributes:
        redrawn: the ordinary cars once more, refined in the fine-tuned generator from where they were.
        tuned_share: how far the style takes an ordinary car's latent towards `redrawn`.
    """

    ordinary: Inversions
    redrawn: Inversions
    concept: Inversions
    tuned_share: float

    def pairs(self, first: list[int], second: list[int]) -> Pairs:
        """Ordinary cars `first` with concept cars `second`, row by row."""
        z, y = self.ordinary.z[first], self.ordinary.y
        restyled = torch.lerp(z, self.redrawn.z[first], self.tuned_share)
        return Pairs(z, self.concept.z[second], None if y is None else y[first], restyled)

    def seed_pairs(self, first: list[int], second: list[int]) -> Pairs:
        """The same as the first seed has them: inverted in the fine-tuned generator, its only one."""
        y = self.redrawn.y
        return Pairs(self.redrawn.z[first], self.concept.z[second], None if y is None else y[first])

    def parents(self, first: list[int]) -> np.ndarray:
        """The ordinary parents' pictures, uint8 (N, H, W, 3)."""
        return self.ordinary.targets[first]

    @property
    def facts(self) -> dict[str, Any]:
        """Names what these latents are."""
        return {kind: getattr(self, kind).path.stem for kind in ("ordinary", "redrawn", "concept")}


def invert_couples(config: Config, generator: StyledGenerator, ordinary: Parents, concept: Parents) -> Couples:
    """Latents of both sets of parents, found anew or on disk."""
    encoder = load_encoder(config, generator)
    found = invert_parents(config, generator, encoder, ordinary, "ordinary")
    return Couples(
        found,
        invert_parents(config, generator, encoder, ordinary, "ordinary", start=found),
        invert_parents(config, generator, encoder, concept, "concept"),
        config.blend.tuned_share,
    )


def held_out_couples(config: Config, generator: StyledGenerator) -> Couples:
    """The held-out pictures of both sets, `inversion.count` of each."""
    count = config.inversion.count
    sets = load_held_out(config.data, count), load_held_out(finetune_config(config).data, count)
    return invert_couples(config, generator, *sets)
