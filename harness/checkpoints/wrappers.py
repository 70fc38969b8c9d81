"""Removes the prefixes of wrapped networks from state dicts."""

from collections.abc import Mapping

from torch import Tensor

WRAPPERS = ("module", "_orig_mod")  # of DataParallel and DDP, and of torch.compile


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the network's own names; unchanged if these would collide."""
    plain = {".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in state}
    return dict(state) if len(plain) < len(state) else {name: state[wrapped] for name, wrapped in plain.items()}
