"""A design as one file with everything that reproduces it: JSON, alone or inside its PNG.

In: a recipe and a session. Out: a document; and from a document, on the same run, the same picture bit for bit.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter
from torch import Tensor

from blend.designs.design_recipe import DesignRecipe
from blend.designs.session import DesignSession, open_session, picture_sha256
from blend.generator.dial import DialPosition, LatentPairs, draw_designs
from harness.errors import UserError
from harness.files import open_file
from harness.images.decode import TEXT_KEY, encode_png, has_png_text, read_png_text
from harness.images.magic_bytes import picture_kind
from harness.runtime.device import one_thread
from harness.storage.atomic import atomic_write
from harness.storage.json_files import parse_json, to_json, type_problem
from harness.storage.output import check_output

FORM = "carforge-design-1"
MAX_FILE_MB = 20
Dial = Annotated[float, Field(ge=0, le=1)]


class KeptPosition(BaseModel):
    latent_weight: Dial
    style: Dial


class DesignLatents(BaseModel):
    ordinary: list[FiniteFloat]
    restyled: list[FiniteFloat] | None
    concept: list[FiniteFloat] | None


class Design(BaseModel):
    """What reproduces a picture; `class` is checked with the run's classes."""

    setting: KeptPosition
    interpolation: Literal["linear", "slerp"]
    latents: DesignLatents


DESIGN = TypeAdapter(Design)


def design_document(
    session: DesignSession, recipe: DesignRecipe, measures: dict[str, Any] | None, note: str
) -> dict[str, Any]:
    """Everything that reproduces the picture (latents, dials, hashes of the generators), its recipe and measures."""
    drawn, pairs = session.draw(recipe), session.pairs(recipe)
    return {
        "form": FORM,
        "run": session.generator.base.name,
        "generators": session.generator.sha256s,
        "recipe": recipe.to_query(),
        "setting": {"latent_weight": drawn.position.latent_weight, "style": drawn.position.style},
        "interpolation": session.config.blend.interpolation,
        "latents": {key: _numbers(getattr(pairs, key)) for key in ("ordinary", "restyled", "concept")},
        "class": None if pairs.y is None else pairs.y[0].tolist(),
        "measures": measures,
        "note": note,
        "picture_sha256": picture_sha256(drawn.picture),
    }


def document_to_picture(session: DesignSession, document: dict[str, Any]) -> np.ndarray:
    """uint8 (H, W, 3). UserError for a document of another run, or an incomplete one."""
    if document.get("form") != FORM:
        raise UserError(f"design: found form {str(document.get('form'))[:40]!r}, allowed {FORM}; export it again")
    if document.get("generators") != session.generator.sha256s:
        raise UserError(
            f"design: was drawn by other weights than run {session.generator.base.name} has now (trained further or "
            "again), allowed the same; restore that run"
        )
    if problem := type_problem(document, DESIGN):
        raise UserError(f"design: is incomplete ({problem}); export it again")
    space, latents, setting = session.generator.latents, document["latents"], document["setting"]
    try:
        y = _to_label(document["class"], session.generator.num_classes)
        ordinary, concept, restyled = (
            None if latents[key] is None else space.from_numbers(latents[key])
            for key in ("ordinary", "concept", "restyled")
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"design: is incomplete ({type(error).__name__}: {error}); export it again") from error
    pairs = LatentPairs(ordinary, concept, y, restyled)  # type: ignore[arg-type]
    drawn = DialPosition(float(setting["latent_weight"]), float(setting["style"]))
    with one_thread():
        return draw_designs(session.generator, pairs, [drawn], document["interpolation"])[0]


def design_png(picture: np.ndarray, document: dict[str, Any]) -> bytes:
    """The exact picture with its document inside."""
    return encode_png(picture, {TEXT_KEY: to_json(document)})


def read_documents(path: Path) -> list[dict[str, Any]]:
    """Of an exported JSON file (one design, or a list of them) or PNG. UserError for anything else."""
    hint = "allowed a JSON or PNG file that the studio exported"
    try:
        with open_file(path) as file:
            content = file.read(MAX_FILE_MB * 2**20 + 1)
        if len(content) > MAX_FILE_MB * 2**20:
            raise UserError(f"{path}: found more than {MAX_FILE_MB} MiB, {hint}")
        if picture_kind(content) == "png":
            content = read_png_text(content, TEXT_KEY).encode()
        found = parse_json(content)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), {hint}") from error
    except ValueError as error:
        raise UserError(f"{path}: holds no design, {hint}") from error
    documents = found if isinstance(found, list) else [found]
    if not documents or not all(isinstance(one, dict) for one in documents):
        raise UserError(f"{path}: holds no design, {hint}")
    return documents


def draw_command(source: Path, out: Path | None, force: bool = False, root: Path = Path("runs")) -> list[Path]:
    """`make draw`: draws every design of the file again. UserError when a picture differs from the exported one."""
    documents = read_documents(source)
    paths = [_out_path(source, out, number, len(documents)) for number in range(len(documents))]
    for path in paths:
        check_output(path, lambda path: has_png_text(path, TEXT_KEY), force, source)
    for number, (path, document) in enumerate(zip(paths, documents, strict=True)):
        session = open_session(str(document.get("run")), root)
        picture = document_to_picture(session, document)
        if picture_sha256(picture) != document.get("picture_sha256"):
            raise UserError(
                f"{source}: design {number} differs from the exported one: other hardware or another PyTorch version "
                "rounds differently; try where it was made"
            )
        atomic_write(path, design_png(picture, document))
    return paths


def _out_path(source: Path, out: Path | None, number: int, count: int) -> Path:
    base = out or source.with_name(f"{source.stem}-drawn.png")
    if base.is_dir():
        raise UserError(f"--out: found the folder {base}, allowed a file, try --out {base / 'design.png'}")
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"--out: found {base}, whose folder is a file, allowed a path in a folder") from error
    return base if count == 1 else base.with_name(f"{base.stem}-{number:02d}.png")


def _numbers(z: Tensor | None) -> list[float] | None:
    """(1, z_dim) → numbers, from which float32 is restored exactly."""
    return None if z is None else z[0].double().tolist()


def _to_label(content: Any, num_classes: int) -> Tensor | None:
    """None, int64 (1,), or the shares of a mix, float32 (1, classes), from `design_document`."""
    if num_classes == 0:
        if content is not None:
            raise ValueError("found a class, the run has none")
        return None
    if isinstance(content, list):
        shares = torch.tensor([content], dtype=torch.float64).float()
        if shares.shape != (1, num_classes) or not bool(torch.isfinite(shares).all()):
            raise ValueError(f"found {len(content)} shares, not {num_classes} numbers")
        return shares
    if not isinstance(content, int) or not 0 <= content < num_classes:
        raise ValueError(f"found class {content!r}, not 0 to {num_classes - 1}")
    return torch.tensor([content])
