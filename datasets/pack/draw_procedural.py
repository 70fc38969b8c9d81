"""The drawn sets as pictures on disk, as if somebody had collected them: data/raw/<set>-<size>/."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets.pack.recipe import drawing_recipe, recipe_differences
from datasets.procedural.messy import render_messy
from datasets.procedural.sets import render_set
from harness.config.experiment import Data
from harness.errors import UserError
from harness.messages import log
from harness.runtime.progress import Progress
from harness.storage.atomic import remove_folder
from harness.storage.json_files import read_json_or_none

MESSY_PX = 160
LOOK_EVERY_SEC = 0.5
RECIPE_FILE = ".recipe.json"  # hidden, so that the folder can be read as a folder of pictures


def draw_procedural(folder: Path, data: Data, redraw: bool, workers: int, replace: bool = False) -> None:
    """Draws a procedural set's pictures and their table of factors into `folder`, unless they are there.

    `redraw`: even if they are there. `replace`: others, drawn otherwise, may go."""
    recipe = drawing_recipe(data) | {"img_size": list(data.img_size)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        found = read_json_or_none(folder / RECIPE_FILE)
        if found == recipe and not redraw:
            return
        if found is None:
            raise UserError(f"{folder}: is there, and was not drawn by Carforge; move it away, or use another data.set")
        if not (redraw or replace):
            lines = recipe_differences(found, recipe)
            head = f"{folder}: was drawn otherwise; try another --set data.set=name, or --rebuild (make: REBUILD=1)"
            raise UserError("\n".join([head, *lines]))
        remove_folder(folder)
    log(f"drawing {data.count} {data.kind} cars")
    temp = folder.with_name(f".tmp-{folder.name}")
    if temp.exists():  # of a killed process: the set's lock is ours
        shutil.rmtree(temp)
    temp.mkdir()
    try:
        with _shown_progress(temp, data):
            _draw(temp, data, workers)
        (temp / RECIPE_FILE).write_text(json.dumps(recipe) + "\n")
        os.sync()  # once for thousands of small files: syncing each takes longer than drawing it
        os.rename(temp, folder)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@contextmanager
def _shown_progress(folder: Path, data: Data) -> Iterator[None]:
    """Shows, while the block runs, how many files have appeared in the folder and below."""
    over = threading.Event()

    def watch() -> None:
        with Progress(f"drawing {data.set}", data.count) as progress:
            while not over.wait(LOOK_EVERY_SEC):
                progress.show(min(data.count, sum(len(files) for _, _, files in os.walk(folder))))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _draw(folder: Path, data: Data, workers: int) -> None:
    if data.kind == "messy":  # files of many sizes and faults, as they come from outside
        render_messy(data.count, data.seed, folder, max(MESSY_PX, *data.img_size))
    else:
        render_set(data.kind, data.count, data.seed, data.img_size, folder, max(1, workers), looseness=data.looseness)
