"""The generators of a run and its fine-tuned run, and every interpolation of their weights.

In: run folders with a checkpoint. Out: networks in eval mode with their own batch-norm statistics.
"""

import copy
import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.checkpoints.load import LoadedCheckpoint, load_run, load_sampler
from harness.checkpoints.origin import check_finetuned_from, check_training_set, log_later_step
from harness.checkpoints.sampling import Sampler, label_to_y, latents_to_pictures, standing_copy
from harness.config.class_choice import Label, text_to_choice
from harness.config.experiment import Config, base_name, finetune_config
from harness.errors import UserError
from harness.networks.base import Generator
from harness.storage.cache import Arrays, cached
from harness.storage.lru import LruCache

STYLE_STEPS = 100  # styles are whole percents
DESIGN_SEEDS = "design"  # the random stream of cars by seed
# Batch-norm statistics are computed at every fifth percent, from a thousand pictures each, and interpolated linearly in
# between: they change smoothly with the style.
KNOT_PERCENT = 5
# Networks in memory: one for each percent of style that was drawn last.
MIN_NETWORKS, NETWORKS_MB = 8, 256


class StyledGenerator:
    """Weights between those of a run (style 0) and of the run fine-tuned from it (style 1).

    The second was fine-tuned from the first, so every interpolation draws cars, and a latent keeps its view and body as
    the style changes. Each has its own batch-norm statistics, cached in `runs/<name>/standing/`. Several threads may
    draw at once.

    Attributes:
        tuned: None without a fine-tuned run; then 0 is the only style.
    """

    def __init__(self, base: LoadedCheckpoint, tuned: LoadedCheckpoint | None) -> None:
        self.base, self.tuned = base, tuned
        self.latents, self.num_classes = base.generator.latents, base.num_classes
        self.height, self.width = base.config.data.img_size
        self.device = next(base.generator.parameters()).device
        size_mb = sum(v.nbytes for v in base.generator.state_dict().values()) / 2**20
        self._networks: LruCache[int, Generator] = LruCache(max(MIN_NETWORKS, int(NETWORKS_MB / max(size_mb, 1e-3))))
        self._buffers: dict[int, dict[str, Tensor]] = {}
        if tuned is not None:
            check_finetuned_from(base.run, tuned.run, tuned.meta)
            _check_same_shape(base, tuned)
            log_later_step(base, tuned)

    @property
    def runs(self) -> list[LoadedCheckpoint]:
        """The base run, and the fine-tuned one if there is one."""
        return [self.base] if self.tuned is None else [self.base, self.tuned]

    @property
    def folder(self) -> Path:
        """Of the base run, `runs/<name>`."""
        return self.base.run.path

    @property
    def sha256s(self) -> dict[str, str | None]:
        """Of both generators' weights."""
        return {"base": self.base.sha256, "tuned": self.tuned.sha256 if self.tuned else None}

    def at(self, style: float) -> Generator:
        """The network of this style (rounded to whole percents): z (B, z_dim), y (B,) or None → (B, 3, H, W)."""
        percent = round(style * STYLE_STEPS)
        assert 0 <= percent <= STYLE_STEPS, style
        if percent and self.tuned is None:
            raise UserError(
                f"style: found {style}, allowed 0 alone: {self.base.name} has no fine-tuned run; try `make finetune`"
            )
        network = self._networks.get(percent)
        if network is None:
            network = copy.deepcopy(self.base.generator)
            network.load_state_dict({**self._weights(percent), **self._statistics(percent)})
            self._networks.keep(percent, network)
        return network

    def knots(self) -> list[int]:
        """Percents whose statistics are computed; the others are interpolated."""
        if self.tuned is None:
            return [0]
        return list(range(0, STYLE_STEPS + 1, 1 if self.base.config.model.apply_g_sn else KNOT_PERCENT))

    def prepare(self, percent: int) -> None:
        """Computes or loads the statistics of a knot."""
        self._computed(percent)

    def draw(self, z: Tensor, style: float, y: Tensor | None = None) -> np.ndarray:
        """uint8 (N, H, W, 3) of latents float32 (N, z_dim)."""
        return latents_to_pictures(self.at(style), z, y)

    def draw_by_seed(self, seeds: list[int], label: Label | None = None) -> tuple[Tensor, Tensor | None]:
        """The base run's sample of each seed: z (N, z_dim), y as the generator takes it; of `label`, or drawn."""
        z, y = self.latents.draw_by_seed(DESIGN_SEEDS, seeds)
        y = y if label is None else label_to_y(label, len(seeds))
        return self._sampler.reencode(z, y), y

    @cached_property
    def _sampler(self) -> Sampler:
        return load_sampler(self.base)

    def key(self, percent: int) -> str:
        """Identifies the weights of this style: equal keys draw equal pictures."""
        tuned = self.tuned.sha256 if percent and self.tuned is not None else ""
        base = self.base.sha256 if percent < STYLE_STEPS else ""
        return hashlib.sha256(f"{base} {tuned} {percent}".encode()).hexdigest()[:24]

    def _statistics(self, percent: int) -> dict[str, Tensor]:
        """The buffers of a style: computed at a knot, interpolated elsewhere."""
        offset = percent % KNOT_PERCENT
        # The vectors of spectral norm are directions, which cannot be interpolated linearly.
        if offset == 0 or self.base.config.model.apply_g_sn:
            return self._computed(percent)
        low, high = self._computed(percent - offset), self._computed(percent - offset + KNOT_PERCENT)
        return {
            k: torch.lerp(v, high[k], offset / KNOT_PERCENT) if v.is_floating_point() else v for k, v in low.items()
        }

    def _computed(self, percent: int) -> dict[str, Tensor]:
        if percent not in self._buffers:
            parameters = dict(self.base.generator.named_parameters())
            names = sorted(self.base.generator.state_dict().keys() - parameters.keys())

            def make() -> Arrays:
                network = copy.deepcopy(self.base.generator)
                network.load_state_dict(self._weights(percent))
                found = standing_copy(network).state_dict()
                return {name: found[name].cpu().numpy() for name in names}

            key = {"generator": self.key(percent), "buffers": names}
            buffers = cached(self.folder / "standing" / f"{key['generator']}.safetensors", key, make)
            self._buffers[percent] = {name: torch.from_numpy(array) for name, array in buffers.items()}
        return self._buffers[percent]

    def _weights(self, percent: int) -> dict[str, Any]:
        mine = self.base.generator.state_dict()
        if self.tuned is None or percent == 0:
            return mine
        theirs = self.tuned.generator.state_dict()
        if percent == STYLE_STEPS:
            return theirs
        share = percent / STYLE_STEPS
        return {k: torch.lerp(v, theirs[k], share) if v.is_floating_point() else v for k, v in mine.items()}


def label_of(generator: StyledGenerator, text: str | None) -> Label | None:
    """The class of this name or number, or a mix of several; None for None. UserError for an unknown class."""
    if text is None:
        return None
    choice = text_to_choice(text, generator.base.class_names if generator.num_classes else [], "label", keywords=())
    return choice.label(generator.num_classes)


def _check_same_shape(base: LoadedCheckpoint, tuned: LoadedCheckpoint) -> None:
    shapes = [{name: tuple(v.shape) for name, v in run.generator.state_dict().items()} for run in (base, tuned)]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{tuned.name}: found a generator of another shape than {base.name}, allowed a run fine-tuned from it; try "
            "another finetune.from_run, or `make finetune` under another name"
        )


def load_generator(config: Config, need_tuned: bool = True, root: Path = Path("runs")) -> StyledGenerator:
    """The generators of an experiment: its run, and the run fine-tuned from it.

    Raises UserError when the run is missing, or the fine-tuned run with `need_tuned`, or when runs and training sets do
    not belong together (`harness/checkpoints/origin.py`).
    """
    base = load_run(base_name(config), root)
    name = finetune_config(config).name
    found = (root / name / "config.yaml").is_file() and any((root / name / "checkpoints").glob("step-*"))
    if need_tuned and not found:
        raise UserError(
            f"finetune: found no fine-tuned run {root / name} beside {base.run.path}, which futuristic "
            "designs need; try `make finetune` with the same CONFIG"
        )
    generator = StyledGenerator(base, load_run(name, root, class_names=base.class_names) if found else None)
    for loaded in generator.runs:
        check_training_set(loaded.run, loaded.config.data, loaded.meta)
    return generator
