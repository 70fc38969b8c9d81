"""What a command asks for, laid over a recipe of configs/sources.yaml: all that is known before anything is touched."""

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
# What a command's options are called in a recipe, and which source knows them.
KEYS = {"size": "picture_size", "width": "width_px"}
FOR_SOURCE = {
    **dict.fromkeys(("size", "makes", "years"), "car_connection"),
    **dict.fromkeys(("provider", "categories", "depth", "width", "terms"), "concept"),
    "handle": "kaggle",
}
OF_PROVIDER = {"commons": {"categories", "depth", "width_px"}, "search": {"terms", "per_term"}}
SRC_OF = {"archive": ("a zip or tar", Path.is_file), "folder": ("a folder", Path.is_dir)}
OTHERWISE = {"archive": "folder", "folder": "archive"}
NOT_SHOWN = {"source", "set", "img_size", "classes", "views", "card"}  # a build's business


@dataclass(frozen=True)
class CrawlPlan:
    """`source`: how the pictures are got. `is_local`: they are on this machine already, or kagglehub brings them."""

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
        return self.source in ("kaggle", "archive", "folder") or (self.source == "car_connection" and bool(self.src))

    def lines(self) -> list[str]:
        """For people: what would be done."""
        lines = [f"set {self.set_name}: {self.source} into {self.folder.as_posix()}"]
        content = self.recipe.model_dump()
        others = [keys for name, keys in OF_PROVIDER.items() if name != content.get("provider")]
        for key, value in content.items():
            if key not in NOT_SHOWN.union(*others):
                lines.append(f"  {key}: {', '.join(value) if isinstance(value, list) else value}")
        lines += [f"  src: {self.src}"] if self.src else []
        lines += [f"  makes: {', '.join(self.makes)}"] if self.makes else []
        lines += [f"  years: {', '.join(map(str, sorted(self.years)))}"] if self.years else []
        return lines + [f"  limit: {self.limit or 'all'}"]


def make_plan(
    asked: str, sources: Sources, *, set_name: str | None = None, src: str | None = None, limit: int | None = None,
    **options: Any,
) -> CrawlPlan:  # fmt: skip
    """UserError for whatever does not fit together.

    Args:
        asked: a source, or a recipe's name.
        options: those of FOR_SOURCE; lists are texts with commas. None or "" = not said.
    """
    recipe = _recipe(asked, sources)
    source = asked if asked in SCRAPED else recipe.source
    changes = _changes(options, source)
    makes_text, years_text = changes.pop("makes", ""), changes.pop("years", "")
    other_set = changes.get("handle") not in (None, getattr(recipe, "handle", None))
    recipe = change_recipe(recipe, changes) if changes else recipe
    found_src = _src(src or None, source)
    name = _set_name(set_name or (None if other_set else recipe.set), recipe, found_src)
    folder = raw_folder(name)
    _refuse_itself(found_src, folder)
    makes = tuple(comma_list(makes_text))
    if makes_text and not makes:
        raise UserError(f"MAKES: found {makes_text!r}, allowed makes with commas, try MAKES=audi,saab; without: all")
    years = text_to_years(years_text) if years_text else None
    if found_src and source == "car_connection" and (makes or years):
        raise UserError("MAKES, YEARS: found with SRC, allowed where the site is walked, try without")
    return CrawlPlan(source, recipe, name, folder, found_src, limit, makes, years)


def _recipe(source: str, sources: Sources) -> AnyRecipe:
    """The recipe of this name, or the first one that is got in this way."""
    recipe = sources.sources.get(source) or sources.recipe_of_source(source)
    if recipe is None and source == "archive":
        recipe = sources.recipe_of_source("folder")
    if recipe is None:
        names = list(dict.fromkeys([*SCRAPED, *(n for n, r in sources.sources.items() if r.source not in BUILT_IN)]))
        raise UserError(f"SOURCE: found {source!r}, allowed {', '.join(names)}")
    if recipe.source in BUILT_IN:
        raise UserError(f"SOURCE: found {source}, for which nothing is scraped, try make dataset SET={source}")
    return recipe


def _changes(options: dict[str, Any], source: str) -> dict[str, Any]:
    """What was said, by the recipe's keys. UserError for an option of another source."""
    changes: dict[str, Any] = {}
    for option, value in options.items():
        if value in (None, ""):
            continue
        if (of := FOR_SOURCE[option]) != source:
            raise UserError(f"{option.upper()}: found {value!r}, allowed with SOURCE={of}, found SOURCE={source}")
        changes[KEYS.get(option, option)] = comma_list(value) if option in ("categories", "terms") else value
    if changes.get("width_px") == 0:
        changes["width_px"] = None  # the originals
    return changes


def _src(text: str | None, source: str) -> Path | None:
    what, fits = SRC_OF.get(source, ("", Path.exists))
    if text is None:
        if what:
            raise UserError(f"SRC: found nothing, allowed {what} of pictures, try SRC=path/to/it")
        return None
    if source == "kaggle":
        raise UserError("SRC: found with SOURCE=kaggle, allowed without; a zip that you have: SOURCE=archive")
    src = to_path(text)
    if not src.exists():
        raise UserError(f"SRC: found nothing at {src}, allowed a file or folder that is there")
    if not fits(src):
        raise UserError(f"SRC: found {src}, allowed with SOURCE={source} {what}, try SOURCE={OTHERWISE[source]}")
    return src


def _set_name(name: str | None, recipe: AnyRecipe, src: Path | None) -> str:
    """The name that is given, or one made of what is imported."""
    if name is None:
        found = recipe.handle.split("/")[1] if isinstance(recipe, KaggleRecipe) else src.resolve().name if src else ""
        name = to_set_name(re.sub(r"\.(zip|tar|tgz|tar\.\w+)$", "", found, flags=re.IGNORECASE))
    if not SET_NAME.fullmatch(name):
        raise UserError(
            f"NAME: found {name!r}, allowed letters, digits, '.', '_' and '-', at most 64, try NAME=my-cars"
        )
    return name


def _refuse_itself(src: Path | None, folder: Path) -> None:
    if src is None:
        return
    inner, outer = src.resolve(), folder.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UserError(f"SRC: found {src}, which holds the set's folder {folder} or lies in it, allowed another place")


def comma_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def text_to_years(text: str) -> frozenset[int]:
    """`2019-2022`, `2019`, `2015,2019-2022`."""
    years: set[int] = set()
    for part in comma_list(text) or [text]:
        found = re.fullmatch(r"(\d{4})(?:\s*-\s*(\d{4}))?", part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise UserError(f"YEARS: found {part!r}, allowed years and spans of years, try YEARS=2015,2019-2022")
        years |= set(range(int(found[1]), int(found[2] or found[1]) + 1))
    return frozenset(years)
