"""Weights of one list of classes fitted to another one: rows follow their class by name.

In: a network's state dict and both lists. Out: the state dict for the new list.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import UserError

TABLES = ("embedding", "embed0", "embed1", "linear2", "to_class")  # modules with a row for each class


def fit_classes(weights: dict[str, Tensor], old: list[str], new: list[str], origin: str) -> dict[str, Tensor]:
    """The state dict with a row for each class of `new`; a class that `old` lacks starts from the mean of all rows.

    Args:
        old, new: class names in the order of the rows. Of imported weights, whose classes are mere numbers, rows stay.
        origin: where the weights come from, for messages.
    """
    if same_classes(old, new):
        return weights
    if _are_numbers(old):
        raise UserError(
            f"{origin}: knows {len(old)} classes without names, allowed the {len(new)} of the set; try weights that "
            "were trained with these"
        )
    rows = [old.index(name) if name in old else None for name in new]
    return {key: _rows(key, value, rows) if _is_table(key) else value for key, value in weights.items()}


def _are_numbers(names: list[str]) -> bool:
    """Whether they are mere numbers, as of imported weights; or there are none."""
    return names == [str(number) for number in range(len(names))]


def _is_table(key: str) -> bool:
    """Of spectral norm's vectors `weight_u` has a row for each class, `weight_v` has none."""
    module, _, leaf = key.rpartition(".")
    return module.rpartition(".")[2] in TABLES and leaf != "weight_v"


def _rows(key: str, table: Tensor, rows: list[int | None]) -> Tensor:
    mean = table.mean(0)
    found = torch.stack([mean if row is None else table[row] for row in rows])
    return F.normalize(found, dim=0) if key.endswith("weight_u") else found  # a unit vector


def same_classes(old: list[str], new: list[str]) -> bool:
    """Whether rows of `old` are those of `new` already; classes without names are taken for them."""
    return old == new or (_are_numbers(old) and len(old) == len(new))


def class_changes(old: list[str], new: list[str]) -> str:
    """Which classes are new and which are dropped, in one line; "" where the names are the same, or unknown."""
    if _are_numbers(old):
        return ""
    added, dropped = [name for name in new if name not in old], [name for name in old if name not in new]
    parts = [f"{text} {', '.join(names)}" for text, names in (("new:", added), ("dropped:", dropped)) if names]
    return "; ".join(parts)
