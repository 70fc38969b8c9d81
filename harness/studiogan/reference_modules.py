"""StudioGAN's own networks, losses and DiffAugment, imported from a checkout for comparison with ours."""

import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


class Modules:
    """`resnet` has Generator and Discriminator; `losses` the adversarial losses; `diff_aug` DiffAugment."""

    def __init__(self, checkout: Path):
        # models/resnet.py needs one name of utils/misc.py, which would import all of training and evaluation.
        misc = ModuleType("utils.misc")
        misc.dummy_context_mgr = nullcontext  # type: ignore[attr-defined]
        source = str(checkout / "src")
        sys.modules["utils.misc"] = misc
        sys.path.insert(0, source)
        try:
            self.resnet: Any = import_module("models.resnet")
            self.losses: Any = import_module("utils.losses")
            self.diff_aug: Any = import_module("utils.diff_aug")
        finally:
            sys.path.remove(source)

    def generator(self, *, size: int, width: int, z_dim: int, num_classes: int, sn: bool, attention_loc: int) -> Any:
        """Uninitialised by StudioGAN's init. `num_classes` 0 = unconditional; `attention_loc` 0 = no attention."""
        return self.resnet.Generator(
            z_dim=z_dim, shared_dim=None, img_size=size, g_conv_dim=width, g_spectral_norm=sn,
            attention=attention_loc > 0, attention_after_nth_gen_block=attention_loc, activation_fn="ReLU",
            conditional_strategy="ProjGAN" if num_classes else "no", num_classes=num_classes, initialize=False,
            G_depth=None, mixed_precision=False,
        )  # fmt: skip

    def discriminator(self, *, size: int, width: int, num_classes: int, sn: bool, attention_loc: int) -> Any:
        return self.resnet.Discriminator(
            img_size=size, d_conv_dim=width, d_spectral_norm=sn, attention=attention_loc > 0,
            attention_after_nth_dis_block=attention_loc, activation_fn="ReLU",
            conditional_strategy="ProjGAN" if num_classes else "no", hypersphere_dim=None, num_classes=num_classes,
            nonlinear_embed=False, normalize_embed=False, initialize=False, D_depth=None, mixed_precision=False,
        )  # fmt: skip
