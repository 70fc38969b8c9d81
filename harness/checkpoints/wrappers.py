"""Weights that were saved through a wrapper around their network."""

from collections.abc import Mapping

from torch import Tensor

WRAPPERS = ("module", "_orig_mod")  # of DataParallel and DDP, and of torch.compile; no layer of ours is called so


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under the names that the network itself gives its weights, in its order."""
    plain = {".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in state}
    return dict(state) if len(plain) < len(state) else {name: state[wrapped] for name, wrapped in plain.items()}
