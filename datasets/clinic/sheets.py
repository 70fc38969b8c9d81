"""Which pictures a sheet of the clinic shows, and in which order: what is most worth a look comes first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from datasets.clean.manual_labels import VIEWS
from datasets.clean.reasons import heading_of
from datasets.pack.manifest import Manifest

SHEETS = ("border", "dropped", "kept", "copies", "changed", "mine")
PAGE_CARDS = 48
# What the sheets hold, as conditions on the table of a manifest.
CONDITIONS = {
    "border": "decided_by = 'model' and sha256 not null and original is null",
    "dropped": "not kept and original is null",
    "kept": "kept",
    "copies": "original not null",
}
MATCHES = "(:class = '' or class = :class) and (:source = '' or source = :source)"
QUERIES = {
    # Alternately the next nearest to the threshold and the next least sure view.
    "border": f"""select pos from (select *,
            row_number() over (order by ok_score is null, abs(ok_score - :threshold), pos) as score_place,
            row_number() over (order by not kept or view_confidence is null, view_confidence, pos) as view_place
        from manifest where {CONDITIONS["border"]}) where {MATCHES}
        order by min(case when ok_score is null then 1e18 else 2 * score_place end,
            case when not kept or view_confidence is null then 1e18 else 2 * view_place + 1 end), pos""",
    # Those that were nearest to be kept come first.
    "dropped": f"""select pos from manifest where {CONDITIONS["dropped"]} and (:only = '' or slug = :only) and {MATCHES}
        order by ifnull(ok_score, -1) desc, pos""",
    # The least sure come first.
    "kept": f"""select pos from manifest where kept and (:only = '' or view = :only) and {MATCHES}
        order by ifnull(view_confidence, 2), pos""",
}


@dataclass(frozen=True)
class MenuEntry:
    """One entry of a sheet's sub-menu."""

    key: str
    name: str
    count: int


@dataclass(frozen=True)
class SheetRequest:
    """What a page asks for. `only`: a reason or a view; `class_`, `source`: a name; "" = all."""

    sheet: str
    only: str = ""
    class_: str = ""
    source: str = ""


def sheet_groups(manifest: Manifest, request: SheetRequest, threshold: float, chosen: Iterable[int]) -> list[list[int]]:
    """Positions in the manifest, in order: groups of copies, each with the one that counts first, or groups of one.

    `chosen`: what the sheets "changed" and "mine" hold."""
    names = {"only": request.only, "class": request.class_, "source": request.source}
    if request.sheet in QUERIES:
        return [[pos] for (pos,) in manifest.rows(QUERIES[request.sheet], **names, threshold=threshold)]
    if request.sheet == "copies":
        query = f"select original, pos from manifest where {CONDITIONS['copies']} and {MATCHES} order by original, pos"
        pairs = groupby(manifest.rows(query, **names), key=lambda pair: pair[0])
        return [[original, *(pos for _, pos in copies)] for original, copies in pairs]
    query = f"select pos from manifest where pos = :pos and {MATCHES}"
    return [[pos] for pos in chosen if manifest.rows(query, **names, pos=pos)]


def to_pages(groups: Sequence[list[int]]) -> list[list[list[int]]]:
    """Whole groups, about PAGE_CARDS positions on each page; one page at least."""
    pages: list[list[list[int]]] = [[]]
    for group in groups:
        if sum(map(len, pages[-1])) >= PAGE_CARDS:
            pages.append([])
        pages[-1].append(group)
    return pages


def sheet_menu(manifest: Manifest, sheet: str) -> list[MenuEntry]:
    """The sub-menu: reasons of the dropped, most frequent first, or views of the kept."""
    if sheet == "dropped":
        counts = manifest.count("slug", f"{CONDITIONS['dropped']} and slug not null")
        return [
            MenuEntry(slug, heading_of(slug), counts[slug]) for slug in sorted(counts, key=lambda one: -counts[one])
        ]
    if sheet == "kept":
        counts = manifest.count("view", "kept")
        return [MenuEntry(view, view_name(view), counts[view]) for view in VIEWS if view in counts]
    return []


def sheet_counts(manifest: Manifest) -> dict[str, int]:
    """Of the sheets that follow from the manifest alone."""
    return {sheet: manifest.total(where) for sheet, where in CONDITIONS.items()}


def view_name(view: str) -> str:
    return view.replace("_", " ") or "not judged"
