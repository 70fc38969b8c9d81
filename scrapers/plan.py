"""A command's options applied to a recipe of configs/sources.yaml; nothing is read or written but to check paths."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.data_sources import (
    BUILT_IN,
    SCRAPED,
    AnyRecipe,
    KaggleRecipe,
    Sources,
    change_recipe,
    raw_folder,
    to_set_name,
)
from harness.config.paths import to_path
from harness.errors import UserError

SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Option → the only source that takes it, and the recipe's key that it sets (makes and years are the plan's own).
OPTIONS = {
    "size": ("car_connection", "picture_size"),
    "makes": ("car_connection", "makes"),
    "years": ("car_connection", "years"),
    "provider": ("concept", "provider"),
    "categories": ("concept", "categories"),
    "depth": ("concept", "depth"),
    "width": ("concept", "width_px"),
    "terms": ("concept", "terms"),
    "handle": ("kaggle", "handle"),
}
PROVIDER_KEYS = {"commons": {"categories", "depth", "width_px"}, "search": {"terms", "per_term"}}
# Source → what SRC must be, how that is checked, and the source to use for the other kind.
SRC_KINDS = {"archive": ("a zip or tar", Path.is_file, "folder"), "folder": ("a folder", Path.is_dir, "archive")}
HIDDEN_KEYS = {"source", "set", "img_size", "classes", "views", "card"}  # used when the set is built


@dataclass(frozen=True)
class CrawlPlan:
    """`source`: how the pictures are obtained."""

    source: str
    recipe: AnyRecipe
    set_name: str
    folder: Path
    src: Path | None
    limit: int | None
    makes: tuple[str, ...]
    years: frozenset[int] | None

    @property
    def is_local(self) -> bool:
        """Whether they are on this machine already, or kagglehub downloads them."""
        return self.source in ("kaggle", "archive", "folder") or (self.source == "car_connection" and bool(self.src))

    def lines(self) -> list[str]:
        """The plan as text, one setting a line."""
        content = self.recipe.model_dump()
        unused = [keys for name, keys in PROVIDER_KEYS.items() if name != content.get("provider")]
        settings = {key: value for key, value in content.items() if key not in HIDDEN_KEYS.union(*unused)}
        if self.src:
            settings["src"] = self.src
        if self.makes:
            settings["makes"] = list(self.makes)
        if self.years:
            settings["years"] = list(map(str, sorted(self.years)))
        settings["limit"] = self.limit or "all"
        head = f"set {self.set_name}: {self.source} into {self.folder.as_posix()}"
        return [head, *(f"  {key}: {', '.join(v) if isinstance(v, list) else v}" for key, v in settings.items())]


def make_plan(
    source: str, sources: Sources, *, set_name: str | None = None, src: str | None = None, limit: int | None = None,
    **options: Any,
) -> CrawlPlan:  # fmt: skip
    """Raises UserError for options that do not fit together.

    Args:
        source: a source, or a recipe's name.
        options: those of OPTIONS; lists are comma-separated. None or "" = not given.
    """
    recipe = _find_recipe(source, sources)
    source = source if source in SCRAPED else recipe.source
    changes = _recipe_changes(options, source)
    makes_text, years_text = changes.pop("makes", ""), changes.pop("years", "")
    other_set = changes.get("handle") not in (None, getattr(recipe, "handle", None))
    recipe = change_recipe(recipe, changes) if changes else recipe
    src_path = _check_src(src or None, source)
    name = _check_set_name(set_name or (None if other_set else recipe.set), recipe, src_path)
    folder = raw_folder(name)
    if src_path is not None:
        inner, outer = src_path.resolve(), folder.resolve()
        if inner == outer or outer in inner.parents or inner in outer.parents:
            raise UserError(
                f"SRC: found {src_path}, which overlaps the set's folder {folder}, allowed a path outside it"
            )
    makes = tuple(comma_list(makes_text))
    if makes_text and not makes:
        raise UserError(f"MAKES: found {makes_text!r}, allowed makes with commas, try MAKES=audi,saab; without: all")
    years = text_to_years(years_text) if years_text else None
    if src_path and source == "car_connection" and (makes or years):
        raise UserError("MAKES, YEARS: found with SRC, allowed only when the site is crawled, try without")
    return CrawlPlan(source, recipe, name, folder, src_path, limit, makes, years)


def _find_recipe(source: str, sources: Sources) -> AnyRecipe:
    """The recipe of this name, or the first one with this source."""
    recipe = sources.sources.get(source) or sources.recipe_of_source(source)
    if recipe is None and source == "archive":
        recipe = sources.recipe_of_source("folder")
    if recipe is None:
        names = list(dict.fromkeys([*SCRAPED, *(n for n, r in sources.sources.items() if r.source not in BUILT_IN)]))
        raise UserError(f"SOURCE: found {source!r}, allowed {', '.join(names)}")
    if recipe.source in BUILT_IN:
        raise UserError(f"SOURCE: found {source}, which is not scraped, try make dataset SET={source}")
    return recipe


def _recipe_changes(options: dict[str, Any], source: str) -> dict[str, Any]:
    """The given options by the recipe's keys. UserError for an option of another source."""
    changes: dict[str, Any] = {}
    for option, value in options.items():
        if value in (None, ""):
            continue
        only_source, key = OPTIONS[option]
        if only_source != source:
            found = f"found {value!r} with SOURCE={source}"
            raise UserError(f"{option.upper()}: {found}, allowed with SOURCE={only_source}")
        changes[key] = comma_list(value) if option in ("categories", "terms") else value
    if changes.get("width_px") == 0:
        changes["width_px"] = None  # the originals
    return changes


def _check_src(text: str | None, source: str) -> Path | None:
    kind, is_kind, other = SRC_KINDS.get(source, ("", Path.exists, ""))
    if text is None:
        if kind:
            raise UserError(f"SRC: found nothing, allowed {kind} of pictures, try SRC=path/to/it")
        return None
    if source == "kaggle":
        raise UserError("SRC: found with SOURCE=kaggle, allowed without; for a downloaded zip: SOURCE=archive")
    src = to_path(text)
    if not src.exists():
        raise UserError(f"SRC: found nothing at {src}, allowed an existing file or folder")
    if not is_kind(src):
        raise UserError(f"SRC: found {src}, allowed {kind} with SOURCE={source}, try SOURCE={other}")
    return src


def _check_set_name(name: str | None, recipe: AnyRecipe, src: Path | None) -> str:
    """The given name, or one made from what is imported."""
    if name is None:
        found = recipe.handle.split("/")[1] if isinstance(recipe, KaggleRecipe) else src.resolve().name if src else ""
        name = to_set_name(re.sub(r"\.(zip|tar|tgz|tar\.\w+)$", "", found, flags=re.IGNORECASE))
    if not SET_NAME.fullmatch(name):
        raise UserError(
            f"NAME: found {name!r}, allowed letters, digits, '.', '_' and '-', at most 64, try NAME=my-cars"
        )
    return name


def comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def text_to_years(text: str) -> frozenset[int]:
    """`2019-2022`, `2019`, `2015,2019-2022`."""
    years: set[int] = set()
    for part in comma_list(text) or [text]:
        found = re.fullmatch(r"(\d{4})(?:\s*-\s*(\d{4}))?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise UserError(f"YEARS: found {part!r}, allowed years and ranges of years, try YEARS=2015,2019-2022")
        years.update(range(first, last + 1))
    return frozenset(years)
