"""Which data sets there are and where they come from: configs/sources.yaml, read and checked as a whole.

A recipe says how a set is got (scrapers) and how it is built unless told otherwise (datasets): size, classes, views.
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
BUILT_IN = ("cifar10", "procedural")  # nothing is scraped for them
ALLOWED = {
    "extra_forbidden": "those that other recipes of this source have, try to leave it out",
    "missing": "a value, see the recipes beside it",
    "union_tag_invalid": ", ".join((*SCRAPED, *BUILT_IN)),
    "union_tag_not_found": ", ".join((*SCRAPED, *BUILT_IN)),
}

Text = Annotated[str, Field(min_length=1)]
PictureSize = Literal["sml", "med", "lrg"]
Provider = Literal["commons", "list", "search"]
# The widths that Wikimedia keeps; any other it would have to make for us alone.
ThumbWidth = Literal[250, 330, 500, 960, 1280, 1920, 3840]
Handle = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+(/versions/\d+)?$")]


class Recipe(Section):
    """What every data set has. `set` null: named after what is imported. `views` null: every view is kept."""

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
    """The whole file. What `politeness` may hold is checked in scrapers/crawl/politeness.py. Files of earlier
    versions call it `manners`."""

    politeness: Annotated[dict[str, Any], Field(validation_alias=AliasChoices("politeness", "manners"))]
    sources: dict[Name, AnyRecipe]

    @property
    def names(self) -> str:
        return ", ".join(self.sources)

    def recipe(self, name: str, key: str = "SET") -> AnyRecipe:
        """The recipe of this name; UserError that lists the others."""
        if name not in self.sources:
            fetched = re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is not None and (RAW / name).is_dir()
            hint = f", try make dataset SET=folder SRC={RAW / name} NAME={name}" if fetched else ""
            raise UserError(f"{key}: found {name!r}, allowed {self.names} (configs/sources.yaml){hint}")
        return self.sources[name]

    def recipe_of_source(self, source: str) -> AnyRecipe | None:
        """The first recipe that is got in this way."""
        return next((recipe for recipe in self.sources.values() if recipe.source == source), None)


def load_sources(path: Path | str = SOURCES_PATH) -> Sources:
    """Reads and checks the file. UserError that names every problem, one a line."""
    try:
        return Sources.model_validate(read_yaml(Path(path)))
    except ValidationError as error:
        raise problems_error(str(path), details_to_problems(error.errors(), ALLOWED, _key_of).values()) from error


def change_recipe(recipe: AnyRecipe, changes: dict[str, Any]) -> AnyRecipe:
    """The recipe with other values for some keys; UserError when one is not allowed."""
    try:
        return type(recipe).model_validate({**recipe.model_dump(), **changes})
    except ValidationError as error:
        raise UserError("\n".join(details_to_problems(error.errors(), ALLOWED, _key_of).values())) from error


def to_set_name(text: str) -> str:
    """The name of a folder or file as a set may have it; "" where nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:64]


def raw_folder(set_name: str) -> Path:
    """Where a scraped set lies."""
    return RAW / set_name


def recipe_to_changes(recipe: AnyRecipe) -> dict[str, Any]:
    """What a data set's recipe says of an experiment: dotted keys of base.yaml with their values.

    data.set and data.src are left to the caller where the set is the user's own folder.
    """
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
    """Where a problem is, without what pydantic adds for the kind of recipe and for parts of a value."""
    parts = [str(part) for part in detail["loc"]]
    if parts[0] in ("politeness", "manners"):
        return ".".join(parts[:2])
    if len(parts) > 2 and parts[2] in (*SCRAPED, *BUILT_IN):
        del parts[2]
    return ".".join([*parts, "source"] if detail["type"].startswith("union_tag") else parts)
