"""Which pictures a sheet of the clinic shows, the most informative first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from datasets.clean.manual_labels import VIEWS
from datasets.clean.reasons import heading_of
from datasets.pack.manifest import Manifest

SHEETS = ("border", "dropped", "kept", "copies", "changed", "mine")
PAGE_CARDS = 48
# Content of the sheets, as conditions on a manifest's table.
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
    # The nearest to the threshold come first.
    "dropped": f"""select pos from manifest where {CONDITIONS["dropped"]} and (:only = '' or slug = :only) and {MATCHES}
        order by ifnull(ok_score, -1) desc, pos""",
    # The least sure come first.
    "kept": f"""select pos from manifest where kept and (:only = '' or view = :only) and {MATCHES}
        order by ifnull(view_confidence, 2), pos""",
}


@dataclass(frozen=True)
class SheetRequest:
    """Query of a page. `only`: a reason or a view; `class_`, `source`: a name; "" = all."""

    sheet: str
    only: str = ""
    class_: str = ""
    source: str = ""


def sheet_groups(manifest: Manifest, request: SheetRequest, threshold: float, chosen: Iterable[int]) -> list[list[int]]:
    """Positions in the manifest, in order: groups of copies with the one that counts first, otherwise groups of one.

    `chosen`: positions of the sheets "changed" and "mine"."""
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
    """Whole groups, about PAGE_CARDS positions per page, at least one page."""
    pages: list[list[list[int]]] = [[]]
    for group in groups:
        if sum(map(len, pages[-1])) >= PAGE_CARDS:
            pages.append([])
        pages[-1].append(group)
    return pages


def sheet_menu(manifest: Manifest, sheet: str) -> list[tuple[str, str, int]]:
    """(key, name, count) of the sub-menu: reasons of dropped pictures, most frequent first, or views of kept ones."""
    if sheet == "dropped":
        counts = manifest.count("slug", f"{CONDITIONS['dropped']} and slug not null")
        return [(slug, heading_of(slug), count) for slug, count in sorted(counts.items(), key=lambda one: -one[1])]
    if sheet == "kept":
        counts = manifest.count("view", "kept")
        return [(view, view_name(view), counts[view]) for view in VIEWS if view in counts]
    return []


def sheet_counts(manifest: Manifest) -> dict[str, int]:
    """Number of pictures on the sheets in CONDITIONS."""
    return {sheet: manifest.total(where) for sheet, where in CONDITIONS.items()}


def view_name(view: str) -> str:
    return view.replace("_", " ") or "not judged"
