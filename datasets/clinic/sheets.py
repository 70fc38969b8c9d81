"""Which pictures a sheet of the clinic shows, and in which order: what is most worth a look comes first."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from datasets.clean.manual_labels import VIEWS
from datasets.clean.reasons import heading_of
from datasets.clinic.index import JUDGES, Index

SHEETS = ("border", "dropped", "kept", "copies", "changed", "mine")
MODEL = JUDGES.index("model")


@dataclass(frozen=True)
class Choice:
    """One entry of a sheet's sub-menu."""

    key: str
    name: str
    count: int


@dataclass(frozen=True)
class Wanted:
    """What a page asks for. `only`: a reason or a view; `class_`, `source`: a name; "" = all."""

    sheet: str
    only: str = ""
    class_: str = ""
    source: str = ""


def sheet_rows(index: Index, wanted: Wanted, threshold: float, changed: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """Row numbers, in order. `changed` and `mine` are the rows of the sheets of those names."""
    if wanted.sheet == "border":
        rows = _borderline(index, threshold)
    elif wanted.sheet == "dropped":
        rows = _dropped(index, index.reasons.find(wanted.only))
    elif wanted.sheet == "kept":
        rows = _kept(index, VIEWS.index(wanted.only) if wanted.only in VIEWS else -1)
    elif wanted.sheet == "copies":
        return _copies(index, _matches(index, wanted))
    else:
        rows = changed if wanted.sheet == "changed" else mine
    return rows[_matches(index, wanted)[rows]]


def sheet_choices(index: Index, sheet: str) -> list[Choice]:
    """The sub-menu: reasons of the dropped, most frequent first, or views of the kept."""
    if sheet == "dropped":
        counts = Counter(index.reason[~index.kept & (index.original < 0)].tolist())
        named = ((index.reasons.names[code], count) for code, count in counts.most_common() if code >= 0)
        return [Choice(slug, heading_of(slug), count) for slug, count in named]
    if sheet == "kept":
        counts = Counter(index.view[index.kept].tolist())
        return [Choice(view, view_name(view), counts[k]) for k, view in enumerate(VIEWS) if counts[k]]
    return []


def sheet_counts(index: Index, changed: np.ndarray, mine: np.ndarray) -> dict[str, int]:
    single = index.original < 0
    return {
        "border": int(((index.judge == MODEL) & index.shown & single).sum()),
        "dropped": int((~index.kept & single).sum()),
        "kept": int(index.kept.sum()),
        "copies": int((index.original >= 0).sum()),
        "changed": len(changed),
        "mine": len(mine),
    }


def view_name(view: str) -> str:
    return view.replace("_", " ") or "not judged"


def _borderline(index: Index, threshold: float) -> np.ndarray:
    """What the model judged: alternately the next nearest to the threshold and the next least sure view."""
    judged = (index.judge == MODEL) & index.shown & (index.original < 0)
    verdict_doubt = np.where(judged & ~np.isnan(index.score), np.abs(index.score - threshold), np.inf)
    view_doubt = np.where(judged & index.kept & ~np.isnan(index.confidence), index.confidence, np.inf)
    best = np.minimum(_ranks(verdict_doubt) * 2.0, _ranks(view_doubt) * 2.0 + 1)
    return np.argsort(best, kind="stable")[: int(judged.sum())]


def _ranks(doubt: np.ndarray) -> np.ndarray:
    """0 for the smallest; infinite where the value is."""
    ranks = np.empty(len(doubt))
    ranks[np.argsort(doubt, kind="stable")] = np.arange(len(doubt))
    return np.where(np.isinf(doubt), np.inf, ranks)


def _dropped(index: Index, reason: int) -> np.ndarray:
    """Of one reason or (-2) of all; those that were nearest to be kept come first."""
    rows = np.flatnonzero(~index.kept & (index.original < 0))
    rows = rows if reason == -2 else rows[index.reason[rows] == reason]
    return rows[np.argsort(-np.nan_to_num(index.score[rows], nan=-1.0), kind="stable")]


def _kept(index: Index, view: int) -> np.ndarray:
    """Of one view or (-1) of all; the least sure first."""
    rows = np.flatnonzero(index.kept if view < 0 else index.kept & (index.view == view))
    return rows[np.argsort(np.nan_to_num(index.confidence[rows], nan=2.0), kind="stable")]


def _copies(index: Index, matches: np.ndarray) -> np.ndarray:
    """Group after group: the copy that counts, then the others."""
    copies = np.flatnonzero((index.original >= 0) & matches)
    copies = copies[np.argsort(index.original[copies], kind="stable")]
    originals, first = np.unique(index.original[copies], return_index=True)
    return np.insert(copies, first, originals)


def _matches(index: Index, wanted: Wanted) -> np.ndarray:
    """Which rows pass the filters: bool (N,)."""
    passed = np.ones(index.count, bool)
    for name, codes, numbers in (
        (wanted.class_, index.classes, index.class_),
        (wanted.source, index.sources, index.source),
    ):
        if name:
            passed &= numbers == codes.find(name)
    return passed
