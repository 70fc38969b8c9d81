"""Adapts the weights of class-conditional layers to another list of classes, by name.

In: a network's state dict and both lists. Out: the state dict for the new list.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import UserError

TABLES = ("embedding", "embed0", "embed1", "linear2", "to_class")  # modules with a row for each class


def fit_classes(weights: dict[str, Tensor], old: list[str], new: list[str], origin: str) -> dict[str, Tensor]:
    """The state dict with a row for each class of `new`; a class missing in `old` gets the mean of all rows.

    Args:
        old, new: class names in the order of the rows. Rows of imported weights, with numbers for names, are kept.
        origin: of the weights, for messages.
    """
    if same_classes(old, new):
        return weights
    if _are_numbers(old):
        raise UserError(
            f"{origin}: has {len(old)} classes without names, allowed the {len(new)} of the set; try weights that "
            "were trained with these"
        )
    rows = [old.index(name) if name in old else None for name in new]
    return {key: _rows(key, value, rows) if _is_table(key) else value for key, value in weights.items()}


def _are_numbers(names: list[str]) -> bool:
    """Whether the names are 0, 1, ..., as of imported weights, or the list is empty."""
    return names == [str(number) for number in range(len(names))]


def _is_table(key: str) -> bool:
    """Whether the weight has a row for each class; of spectral norm's vectors `weight_u` has, `weight_v` does not."""
    module, _, leaf = key.rpartition(".")
    return module.rpartition(".")[2] in TABLES and leaf != "weight_v"


def _rows(key: str, table: Tensor, rows: list[int | None]) -> Tensor:
    mean = table.mean(0)
    found = torch.stack([mean if row is None else table[row] for row in rows])
    return F.normalize(found, dim=0) if key.endswith("weight_u") else found  # a unit vector


def same_classes(old: list[str], new: list[str]) -> bool:
    """Whether the rows of `old` already fit `new`; unnamed classes are assumed to."""
    return old == new or (_are_numbers(old) and len(old) == len(new))


def class_changes(old: list[str], new: list[str]) -> str:
    """New and dropped classes, in one line; "" when there are none, or the old names are unknown."""
    if _are_numbers(old):
        return ""
    added, dropped = [name for name in new if name not in old], [name for name in old if name not in new]
    parts = [f"{text} {', '.join(names)}" for text, names in (("new:", added), ("dropped:", dropped)) if names]
    return "; ".join(parts)
