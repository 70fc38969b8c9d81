"""What a command asks for, laid over a recipe of configs/sources.yaml: all that is known before anything is touched."""

import os
import re
from dataclasses import dataclass, fields, replace
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
from harness.errors import UserError

SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Option → (the recipe's key, which sources know it).
FOR_SOURCE = {
    "size": ("picture_size", "car_connection"),
    "makes": (None, "car_connection"),
    "years": (None, "car_connection"),
    "provider": ("provider", "concept"),
    "categories": ("categories", "concept"),
    "depth": ("depth", "concept"),
    "width": ("width_px", "concept"),
    "terms": ("terms", "concept"),
    "handle": ("handle", "kaggle"),
}


OF_PROVIDER = {"commons": {"categories", "depth", "width_px"}, "search": {"terms", "per_term"}}
SRC_OF = {"archive": ("a zip or tar", Path.is_file), "folder": ("a folder", Path.is_dir)}
OTHERWISE = {"archive": "folder", "folder": "archive"}
NOT_SHOWN = {"source", "set", "img_size", "classes", "views", "card"}  # a build's business


@dataclass(frozen=True)
class Asked:
    """A command's options; None = not said. Lists are texts with commas."""

    source: str
    set_name: str | None = None
    src: str | None = None
    limit: int | None = None
    size: str | None = None
    makes: str | None = None
    years: str | None = None
    provider: str | None = None
    categories: str | None = None
    depth: int | None = None
    width: int | None = None
    terms: str | None = None
    handle: str | None = None


@dataclass(frozen=True)
class Plan:
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

    @property
    def _of_other_providers(self) -> set[str]:
        provider = getattr(self.recipe, "provider", None)
        return set().union(*(keys for name, keys in OF_PROVIDER.items() if name != provider))

    def lines(self) -> list[str]:
        """For people: what would be done."""
        lines = [f"set {self.set_name}: {self.source} into {self.folder.as_posix()}"]
        for key, value in self.recipe.model_dump().items():
            if key not in NOT_SHOWN | self._of_other_providers:
                lines.append(f"  {key}: {', '.join(value) if isinstance(value, list) else value}")
        lines += [f"  src: {self.src}"] if self.src else []
        lines += [f"  makes: {', '.join(self.makes)}"] if self.makes else []
        lines += [f"  years: {', '.join(map(str, sorted(self.years)))}"] if self.years else []
        return lines + [f"  limit: {self.limit or 'all'}"]


def make_plan(asked: Asked, sources: Sources) -> Plan:
    """UserError for whatever does not fit together."""
    asked = replace(asked, **{field.name: None for field in fields(asked) if getattr(asked, field.name) == ""})
    recipe = _recipe(asked.source, sources)
    source = asked.source if asked.source in SCRAPED else recipe.source
    changes = _changes(asked, source)
    other_set = bool(changes.get("handle")) and changes["handle"] != getattr(recipe, "handle", None)
    recipe = change_recipe(recipe, changes) if changes else recipe
    src = _src(asked.src, source)
    set_name = _set_name(asked.set_name, None if other_set else recipe.set, recipe, src)
    folder = raw_folder(set_name)
    _refuse_itself(src, folder)
    makes = tuple(comma_list(asked.makes or ""))
    if asked.makes and not makes:
        raise UserError(f"MAKES: found {asked.makes!r}, allowed makes with commas, try MAKES=audi,saab; without: all")
    years = text_to_years(asked.years) if asked.years else None
    if src and source == "car_connection" and (makes or years):
        raise UserError("MAKES, YEARS: found with SRC, allowed where the site is walked, try without")
    return Plan(source, recipe, set_name, folder, src, asked.limit, makes, years)


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


def _changes(asked: Asked, source: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for option, (key, of) in FOR_SOURCE.items():
        value = getattr(asked, option)
        if value is None:
            continue
        if of != source:
            raise UserError(f"{option.upper()}: found {value!r}, allowed with SOURCE={of}, found SOURCE={source}")
        if key:
            changes[key] = comma_list(value) if option in ("categories", "terms") else value
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
    src = Path(os.path.expanduser(text))
    if not src.exists():
        raise UserError(f"SRC: found nothing at {src}, allowed a file or folder that is there")
    if not fits(src):
        raise UserError(f"SRC: found {src}, allowed with SOURCE={source} {what}, try SOURCE={OTHERWISE[source]}")
    return src


def _set_name(asked: str | None, default: str | None, recipe: AnyRecipe, src: Path | None) -> str:
    """The name asked for, the recipe's, or one made of what is imported."""
    if asked is not None:
        name = asked
    elif default:
        name = default
    else:
        found = recipe.handle.split("/")[1] if isinstance(recipe, KaggleRecipe) else src.resolve().name if src else ""
        name = re.sub(r"\.(zip|tar|tgz|tar\.\w+)$", "", found, flags=re.IGNORECASE)
        name = to_set_name(name)
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
    for part in comma_list(text):
        found = re.fullmatch(r"(\d{4})(?:\s*-\s*(\d{4}))?", part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise UserError(f"YEARS: found {part!r}, allowed years and spans of years, try YEARS=2015,2019-2022")
        years |= set(range(int(found[1]), int(found[2] or found[1]) + 1))
    if not years:
        raise UserError(f"YEARS: found {text!r}, allowed years and spans of years, try YEARS=2015,2019-2022")
    return frozenset(years)
