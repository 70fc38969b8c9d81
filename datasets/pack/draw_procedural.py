"""Draws procedural sets as folders of picture files: data/raw/<set>-<size>/."""

import json
import os
import shutil
from pathlib import Path

from datasets.pack.recipe import drawing_recipe, recipe_differences
from datasets.procedural.messy import render_messy
from datasets.procedural.sets import render_set
from harness.config.experiment import Data
from harness.errors import UserError
from harness.messages import log
from harness.storage.atomic import remove_folder
from harness.storage.json_files import read_json_or_none

MESSY_PX = 160
RECIPE_FILE = ".recipe.json"  # hidden, so that it is not listed as a picture


def draw_procedural(folder: Path, data: Data, redraw: bool, workers: int, replace: bool = False) -> None:
    """Draws a procedural set's pictures and their table of factors into `folder`, unless they are there.

    `redraw`: even if they are there. `replace`: a set with another recipe may be replaced."""
    recipe = drawing_recipe(data) | {"img_size": list(data.img_size)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        found = read_json_or_none(folder / RECIPE_FILE)
        if found == recipe and not redraw:
            return
        if found is None:
            raise UserError(f"{folder}: exists, and was not drawn by Carforge; move it away, or use another data.set")
        if not (redraw or replace):
            lines = recipe_differences(found, recipe)
            head = f"{folder}: has another recipe; try another --set data.set=name, or --rebuild (make: REBUILD=1)"
            raise UserError("\n".join([head, *lines]))
        remove_folder(folder)
    log(f"drawing {data.count} {data.kind} cars")
    temp = folder.with_name(f".tmp-{folder.name}")
    if temp.exists():  # left by a killed process: we hold the set's lock
        shutil.rmtree(temp)
    temp.mkdir()
    try:
        _draw(temp, data, workers)
        (temp / RECIPE_FILE).write_text(json.dumps(recipe) + "\n")
        os.sync()  # once: syncing thousands of small files one by one takes longer than drawing them
        os.rename(temp, folder)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _draw(folder: Path, data: Data, workers: int) -> None:
    label = f"drawing {data.set}"
    if data.kind == "messy":
        render_messy(data.count, data.seed, folder, max(MESSY_PX, *data.img_size), label)
    else:
        looseness, workers = data.looseness, max(1, workers)
        render_set(data.kind, data.count, data.seed, data.img_size, folder, workers, looseness=looseness, label=label)
