"""`make sample`: pictures of chosen classes from a run's checkpoint, as a grid or as single files.

In: a run, a choice of classes. Out: runs/<name>/samples/<choice>-….png, or a folder of PNG files. The same call gives
the same pictures.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from harness.checkpoints.chosen_config import changed_config
from harness.checkpoints.load import LoadedCheckpoint, load_run, load_sampler
from harness.checkpoints.sampling import label_to_y
from harness.config.class_choice import Choice, text_to_choice
from harness.errors import UserError
from harness.images.decode import TEXT_KEY, has_png_text, picture_grid, save_png
from harness.images.tensors import grid_columns
from harness.runtime.rng import RandomStreams
from harness.storage.output import check_output

COUNT, COUNT_EACH = 36, 8  # default number of pictures; of each class with `all`
MAX_NAME_CHARS = 60  # characters of a choice in a file's name
MARGIN_PX = 4


def sample_run(
    run: str,
    label: str = "random",
    count: int | None = None,
    checkpoint: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    truncation: float = 1.0,
    force: bool = False,
    root: Path = Path("runs"),
    overrides: Iterable[str] | None = (),
) -> Path:
    """Draws pictures from a run's checkpoint. Returns the grid's path, or the folder of single pictures.

    Args:
        label: for `text_to_choice`. `all`: one row per class, with the same latents.
        count: number of pictures, with `all` of each class; None = 36, or 8.
        checkpoint: None = the newest, `best`, or the name of a folder under checkpoints/.
        seed: of the latents, and of the classes with `random`.
        out: folder for single pictures instead of a grid; each PNG has its origin in a text chunk.
        truncation: 0 to 1, see `LatentSpace.truncate`.
        force: replace files in `out` that this command did not write.
        overrides: `section.key=value` applied to the run's config, such as reconstruction.sample_passes=2.
    """
    loaded = load_run(run, root, checkpoint)
    if overrides:
        loaded = loaded.with_sample_passes(changed_config(loaded.run, overrides).reconstruction.sample_passes)
    names = loaded.class_names if loaded.num_classes else []
    choice = text_to_choice(label, names)
    count = count or (COUNT_EACH if choice.kind == "all" else COUNT)
    pictures, y = draw_choice(loaded, choice, count, seed, truncation)
    if out is not None:
        return _save_single(out, loaded, pictures, y, seed, truncation, force)
    if choice.kind == "all":
        grid = name_rows(picture_grid(pictures, count), names)
    else:
        grid = picture_grid(pictures, grid_columns(count))
    shown = label if choice.kind != "mix" else "_".join(_part(names[number], share) for number, share in choice.mix)
    truncated = f"-truncation-{truncation:g}" if truncation != 1 else ""
    path = loaded.run.samples / f"{_file_name(shown)}-{count}-{loaded.folder.name}-seed-{seed}{truncated}.png"
    path.parent.mkdir(exist_ok=True)
    save_png(path, grid)
    return path


def draw_choice(
    loaded: LoadedCheckpoint, choice: Choice, count: int, seed: int, truncation: float = 1.0
) -> tuple[np.ndarray, torch.Tensor | None]:
    """uint8 (N, H, W, 3), and the generator's labels, (N,) or (N, classes) or None.

    N = count, with `all` count for every class, class after class on the same latents.
    """
    classes, latents = loaded.num_classes, loaded.generator.latents
    # Latents are drawn before classes, so they do not depend on the choice.
    z, y = latents.draw(RandomStreams(seed, torch.device("cpu")), "sample", 0, count)
    if choice.kind == "all":
        z, y = z.repeat(classes, 1), torch.arange(classes).repeat_interleave(count)
    elif choice.kind == "mix":
        y = label_to_y(choice.label(classes), count)
    return load_sampler(loaded).draw(z, y, truncation), y


def _save_single(
    folder: Path,
    loaded: LoadedCheckpoint,
    pictures: np.ndarray,
    y: torch.Tensor | None,
    seed: int,
    truncation: float,
    force: bool,
) -> Path:
    """`<run>-<checkpoint>-seed-<seed>-00000.png` and so on."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"OUT: found {folder}, which is a file or inside one, allowed a folder") from error
    digits = max(5, len(str(len(pictures) - 1)))
    head = f"{loaded.name}-{loaded.folder.name}-seed-{seed}"
    paths = [folder / f"{head}-{number:0{digits}d}.png" for number in range(len(pictures))]
    for path in paths:
        check_output(path, lambda path: has_png_text(path, TEXT_KEY), force)
    for number, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
        origin = {"run": loaded.name, "checkpoint": loaded.folder.name, "generator_sha256": loaded.sha256}
        origin |= {"seed": seed, "number": number, "truncation": truncation}
        if loaded.sample_passes:
            origin["sample_passes"] = loaded.sample_passes
        if y is not None:
            origin["class"] = _class_text(y[number], loaded.class_names)
        save_png(path, picture, {TEXT_KEY: json.dumps(origin)})
    return folder


def _class_text(label: torch.Tensor, names: list[str]) -> str:
    """A class's name, or those of a mix with their shares."""
    if label.dim() == 0:
        return names[int(label)]
    return ",".join(f"{name}:{share:g}" for name, share in zip(names, label.tolist(), strict=True) if share)


def name_rows(grid: np.ndarray, names: list[str]) -> np.ndarray:
    """The grid, uint8 (H, W, 3), with a name to the left of each row."""
    height = grid.shape[0] / len(names)
    font = ImageFont.load_default(max(9, min(24, round(0.3 * height))))
    wide = 2 * MARGIN_PX + round(max(font.getlength(name) for name in names))
    image = Image.new("RGB", (wide, grid.shape[0]), "white")
    pen = ImageDraw.Draw(image)
    for row, name in enumerate(names):
        pen.text((MARGIN_PX, (row + 0.5) * height), name, "black", font, anchor="lm")
    return np.concatenate([np.asarray(image), grid], 1)


def _part(name: str, share: float) -> str:
    return name if share == 1 else f"{name}-{share:.3g}"


def _file_name(label: str) -> str:
    """A file name that differs from the training's grids, `step-…`."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", label)
    if plain != label or len(plain) > MAX_NAME_CHARS:  # other labels might give the same
        plain = f"{plain[:MAX_NAME_CHARS]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    return f"brand-{plain}"
