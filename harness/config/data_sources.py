"""The known data sets: configs/sources.yaml, read and checked as a whole.

A recipe holds the origin of a set (scrapers) and the defaults for building it (datasets): size, classes, views.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, ValidationError

from harness.config.schema import Name, Section, Size, ViewName
from harness.config.validation import details_to_problems, problems_error
from harness.config.yaml_files import read_yaml
from harness.errors import UserError

SOURCES_PATH = Path(__file__).resolve().parents[2] / "configs" / "sources.yaml"
RAW = Path("data/raw")
SCRAPED = ("kaggle", "car_connection", "concept", "archive", "folder")
BUILT_IN = ("cifar10", "procedural")  # not scraped
ALLOWED = {
    "extra_forbidden": "those that other recipes of this source have, try to leave it out",
    "missing": "a value, see the recipes beside it",
    "union_tag_invalid": ", ".join((*SCRAPED, *BUILT_IN)),
    "union_tag_not_found": ", ".join((*SCRAPED, *BUILT_IN)),
}

Text = Annotated[str, Field(min_length=1)]
PictureSize = Literal["sml", "med", "lrg"]
Provider = Literal["commons", "list", "search"]
# The widths that Wikimedia has stored; it would have to render any other for us.
ThumbWidth = Literal[250, 330, 500, 960, 1280, 1920, 3840]
Handle = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+(/versions/\d+)?$")]


class Recipe(Section):
    """The keys of every data set. `set` null: named after the import. `views` null: every view is kept."""

    origin: Text
    set: Name | None
    img_size: Size
    classes: bool
    views: list[ViewName] | None
    card: Annotated[str, Field(pattern=r"^datasets/cards/[a-z0-9_]+\.md$")]


class KaggleRecipe(Recipe):
    source: Literal["kaggle"]
    handle: Handle


class CarConnectionRecipe(Recipe):
    source: Literal["car_connection"]
    picture_size: PictureSize
    years_per_model: Annotated[int, Field(ge=1, le=100)]
    pictures_per_car: Annotated[int, Field(ge=1, le=1000)]
    leave_out: list[Text]


class ConceptRecipe(Recipe):
    source: Literal["concept"]
    provider: Provider
    categories: Annotated[list[Text], Field(min_length=1)]
    depth: Annotated[int, Field(ge=0, le=10)]
    width_px: ThumbWidth | None
    terms: list[Text]
    per_term: Annotated[int, Field(ge=1, le=200)]


class FolderRecipe(Recipe):
    source: Literal["folder", "archive"]


class BuiltInRecipe(Recipe):
    source: Literal["cifar10", "procedural"]


AnyRecipe = Annotated[
    KaggleRecipe | CarConnectionRecipe | ConceptRecipe | FolderRecipe | BuiltInRecipe, Field(discriminator="source")
]


class Sources(Section):
    """The whole file. `politeness` is checked in scrapers/crawl/politeness.py; earlier versions called it `manners`."""

    politeness: Annotated[dict[str, Any], Field(validation_alias=AliasChoices("politeness", "manners"))]
    sources: dict[Name, AnyRecipe]

    @property
    def names(self) -> str:
        return ", ".join(self.sources)

    def recipe(self, name: str, key: str = "SET") -> AnyRecipe:
        """The recipe of this name; a UserError lists the others."""
        if name not in self.sources:
            fetched = re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is not None and (RAW / name).is_dir()
            hint = f", try make dataset SET=folder SRC={RAW / name} NAME={name}" if fetched else ""
            raise UserError(f"{key}: found {name!r}, allowed {self.names} (configs/sources.yaml){hint}")
        return self.sources[name]

    def recipe_of_source(self, source: str) -> AnyRecipe | None:
        """The first recipe with this source."""
        return next((recipe for recipe in self.sources.values() if recipe.source == source), None)


def load_sources(path: Path | str = SOURCES_PATH) -> Sources:
    """Reads and checks the file. UserError with every problem, one per line."""
    try:
        return Sources.model_validate(read_yaml(Path(path)))
    except ValidationError as error:
        raise problems_error(str(path), details_to_problems(error.errors(), ALLOWED, _key_of).values()) from error


def change_recipe(recipe: AnyRecipe, changes: dict[str, Any]) -> AnyRecipe:
    """The recipe with some keys changed; UserError for invalid values."""
    try:
        return type(recipe).model_validate({**recipe.model_dump(), **changes})
    except ValidationError as error:
        raise UserError("\n".join(details_to_problems(error.errors(), ALLOWED, _key_of).values())) from error


def to_set_name(text: str) -> str:
    """A folder's or file's name as a valid set name; "" if nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:64]


def raw_folder(set_name: str) -> Path:
    """The folder of a scraped set."""
    return RAW / set_name


def recipe_to_changes(recipe: AnyRecipe) -> dict[str, Any]:
    """A recipe as dotted keys and values of an experiment, without data.set and data.src for a user's own folder."""
    kind = recipe.source if recipe.source in BUILT_IN else "folder"
    changes: dict[str, Any] = {"data.source": kind, "data.img_size": list(recipe.img_size)}
    if recipe.set is not None:
        changes["data.set"] = recipe.set
        if kind == "folder":
            changes["data.src"] = raw_folder(recipe.set).as_posix()
    if kind == "folder":
        changes["clean.views"] = recipe.views
    return changes


def _key_of(detail: Any) -> str:
    """The key of a problem, without what pydantic adds for the union's member and for parts of a value."""
    parts = [str(part) for part in detail["loc"]]
    if parts[0] in ("politeness", "manners"):
        return ".".join(parts[:2])
    if len(parts) > 2 and parts[2] in (*SCRAPED, *BUILT_IN):
        del parts[2]
    return ".".join([*parts, "source"] if detail["type"].startswith("union_tag") else parts)
