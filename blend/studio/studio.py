"""The state of a studio: the open run, the shelf, jobs, and answers to the page as plain values.

In: the name of a run. Out: what `server.py` sends over HTTP.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blend.designs.design_recipe import MAX_PARENTS, DesignRecipe, Parent, check_reference
from blend.designs.export import design_document
from blend.designs.parents import MAX_UPLOAD_BYTES
from blend.designs.session import DesignSession, open_session
from blend.generator.kinds import KINDS, Kind
from blend.studio.demo_job import DemoProcess
from blend.studio.jobs import Job, Jobs
from blend.studio.latest_only_queue import LatestOnlyQueue
from blend.studio.shelf import Shelf, check_note
from harness.checkpoints.origin import other_training_set_note
from harness.errors import UserError
from harness.storage.json_files import read_json_or_none
from harness.storage.lru import LruCache
from harness.web.embed import picture_jpeg, picture_jpeg_uri, sweep_webp

GALLERY = {False: "Cars that training never saw", True: "Training pictures: nothing is held out of the sets"}
LARGE_PX, SMALL_PX = 768, 192  # approximate widths: pictures are enlarged by whole numbers
ANIMATION_FRAMES, ANIMATION_PX = 21, 512
CACHE_MB = 48


class Studio:
    """Attributes: session; error (why there is none: the run does not exist)."""

    def __init__(self, name: str, demo: DemoProcess, root: Path = Path("runs"), overrides: Sequence[str] = ()) -> None:
        self.name, self.demo, self.root, self.overrides = name, demo, root, overrides
        self.jobs, self.queue = Jobs(), LatestOnlyQueue()
        self.session: DesignSession | None = None
        self.error = ""
        self.closing = threading.Event()
        self.open(name)

    # ---- the run ----

    def open(self, name: str) -> None:
        """Opens the run of this name, or sets `error`."""
        self.name = name
        try:
            session = open_session(name, self.root, self.overrides)
        except UserError as error:
            self.session, self.error = None, str(error)
            return
        self._shelf = Shelf(session.generator.folder / "studio")
        self._cache: LruCache[tuple[str, str], dict[str, Any]] = LruCache(CACHE_MB * 2**20, _size)
        self.session, self.error = session, ""
        self._run_id = session.generator.base.run.id
        self.jobs.drop("prepare")
        self.jobs.start("prepare", self._prepare)

    def page_facts(self) -> dict[str, Any]:
        """The page's values: the run's size, classes and missing parts, or why there is no run; and, without a run or
        with the ready-made model, the demo's stages as `offer`."""
        facts = {"name": self.name, "max_upload_mb": MAX_UPLOAD_BYTES // 2**20, "max_parents": MAX_PARENTS}
        if self.session is None:
            return {**facts, "run": None, "error": self.error, "offer": self._demo_offer()}
        origin = (read_json_or_none(self.session.generator.base.run.env_path) or {}).get("pretrained", "")
        generator, missing = self.session.generator, self.session.missing
        run = {
            "height": generator.height,
            "width": generator.width,
            "classes": generator.base.class_names if generator.num_classes else [],
            "missing": {key: missing.get(key, "") for key in ("finetune", "encoder", "measures")},
            "first": self.first_recipe().to_query(),
            "gallery": GALLERY[any(parents.note for parents in self.session.parent_store.held_out.values())],
            "step": generator.base.step,
            "origin": origin,
            "other_sets": [note for run in generator.runs if (note := other_training_set_note(run.run, run.meta))],
        }
        return {**facts, "run": run, "offer": self._demo_offer() if origin else None}

    def _demo_offer(self) -> dict[str, Any]:
        plan = self.demo.plan()
        minutes = max(1, round(sum(stage["seconds"] for stage in plan) / 60))
        return {"plan": plan, "minutes": minutes, "running": self.demo.is_running()}

    def close(self) -> None:
        self.closing.set()
        self.queue.close()
        self.jobs.close()

    def require_session(self) -> DesignSession:
        if self.session is None:
            raise UserError(self.error or "studio: no run is open; reload the page")
        run = self.session.generator.base.run
        if not run.path.is_dir() or run.facts().get("id") != self._run_id:
            raise UserError(f"studio: {run.path} was replaced, renamed or removed; put it back, or restart the studio")
        return self.session

    @property
    def shelf(self) -> Shelf:
        self.require_session()
        return self._shelf

    def _prepare(self, job: Job) -> dict[str, Any]:
        """Measures and all styles, so that the dials are fast."""
        session = self.require_session()
        job.report(0, 1, "fitting the measures")
        session.open_measures()

        def progress(done: int, total: int) -> None:
            job.report(done, total, f"style dial: {done} of {total} positions prepared")
            self.jobs.run_waiting()

        session.prepare_styles(progress)
        return {"missing": session.missing}

    # ---- designs: called in the drawing thread ----

    def design(self, recipe: DesignRecipe) -> dict[str, Any]:
        """The picture of a recipe, its dial positions and its futurism."""

        def make() -> dict[str, Any]:
            drawn = self.require_session().draw(recipe)
            futurism = self.require_session().futurism(drawn.picture[None])
            return {
                "picture": picture_jpeg_uri(drawn.picture, LARGE_PX),
                "intensity": round(drawn.position.latent_weight, 4),
                "style": drawn.position.style,
                "futurism": None if futurism is None else round(futurism[0], 1),
                "reach": None if drawn.score_range is None else [round(value, 1) for value in drawn.score_range],
            }

        return self._cached("draw", recipe, make)

    def sweep(self, recipe: DesignRecipe) -> dict[str, Any]:
        """The same parents at all intensities."""

        def make() -> dict[str, Any]:
            places, pictures = self.require_session().sweep(recipe)
            scores = self.require_session().futurism(pictures) or [None] * len(places)
            rows = zip(places, pictures, scores, strict=True)
            return {
                "designs": [
                    {"intensity": place, "picture": picture_jpeg_uri(picture, SMALL_PX), "futurism": score}
                    for place, picture, score in rows
                ]
            }

        return self._cached("sweep", recipe, make)

    def measure(self, recipe: DesignRecipe) -> dict[str, Any]:
        """Futurism, identity, novelty with the nearest training pictures; or `missing`: why there are no measures."""

        def make() -> dict[str, Any]:
            session = self.require_session()
            measures = session.measure(recipe, session.draw(recipe).picture)
            if measures is None:
                return {"missing": session.missing["measures"]}
            novelty = measures["novelty"]
            near = {name: found for name, found in novelty.items() if isinstance(found, dict)}
            pictures = {name: session.training_picture(found["set"], found["row"]) for name, found in near.items()}
            shown = {
                name: {**near[name], "picture": None if picture is None else picture_jpeg_uri(picture, SMALL_PX)}
                for name, picture in pictures.items()
            }
            verdict = {key: value for key, value in novelty.items() if key not in near}
            return {**measures, "novelty": {**verdict, "nearest": shown}}

        return self._cached("measure", recipe, make)

    def _cached(self, kind: str, recipe: DesignRecipe, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        session, cache, key = self.require_session(), self._cache, (kind, recipe.to_query())
        result = cache.get(key)
        if result is None:
            complete = session.measures is not None or "measures" in session.missing
            result = make()
            if complete:  # not while its figures wait for the measures
                cache.keep(key, result)
        return result

    # ---- parents ----

    def first_recipe(self) -> DesignRecipe:
        """What the page opens with: two held-out cars where their latents are known, otherwise cars by seed."""
        session = self.require_session()
        parents: dict[Kind, tuple[Parent, ...]] = {}
        for side in KINDS:
            names = session.parent_store.held_out[side].names[:1]
            parents[side] = tuple(Parent(name) for name in names if session.parent_store.find(side, name) is not None)
        if parents["ordinary"]:
            return DesignRecipe(parents["ordinary"], parents["concept"])
        return DesignRecipe((Parent("seed-1"),), () if "finetune" in session.missing else (Parent("seed-2"),))

    def parent_jpeg(self, side: Kind, reference: str, large: bool = False) -> bytes:
        picture = self.require_session().parent_store.picture(side, check_reference(reference))
        return picture_jpeg(picture, LARGE_PX if large else SMALL_PX)

    def start_search(self, side: Kind, reference: str, label: str | None, tab: str = "") -> Job:
        """The job that finds a parent's latent; done at once where it is known."""
        session = self.require_session()
        check_reference(reference)
        if side == "concept" and "finetune" in session.missing:
            raise UserError(session.missing["finetune"])

        def work(job: Job) -> dict[str, Any]:
            job.report(0, 1, "encoding the picture")

            def progress(done: int, total: int, drawn: np.ndarray, error: float) -> None:
                message = f"step {done} of {total}, picture error {error:.4f}"
                job.report(done, total, message, picture=picture_jpeg_uri(drawn, SMALL_PX))

            found = session.parent_store.search(side, reference, label, progress)
            median = None if found.error is None else session.parent_store.median_error(side)
            errors = {"error": found.error, "first_error": found.first_error, "median_error": median}
            rounded = {key: None if value is None else round(value, 4) for key, value in errors.items()}
            return {"picture": picture_jpeg_uri(found.redrawn, SMALL_PX), **rounded}

        name = f"{id(session)} {side} {reference} {label}"
        key = f"parent-{hashlib.sha256(name.encode()).hexdigest()[:24]}"
        known = session.parent_store.find(side, reference, label) is not None
        return self.jobs.start(key, work, run_now=known, tab=tab)

    # ---- the shelf and exports ----

    def document(self, recipe: DesignRecipe, note: str = "") -> tuple[np.ndarray, dict[str, Any]]:
        """(picture, document) of a design, with its measures. Called in the drawing thread."""
        session = self.require_session()
        picture = session.draw(recipe).picture
        return picture, design_document(session, recipe, session.measure(recipe, picture), check_note(note))

    def sweep_webp(self, recipe: DesignRecipe) -> bytes:
        return sweep_webp(self.require_session().sweep(recipe, ANIMATION_FRAMES)[1], ANIMATION_PX)

    def shelf_entries(self) -> list[dict[str, Any]]:
        session = self.require_session()
        return [shelf_row(entry, session.generator.sha256s) for entry in self.shelf.entries()]

    # ---- the demo run ----

    def start_demo(self) -> Job:
        def work(job: Job) -> dict[str, Any]:
            self.demo.run(job)
            name = self.demo.config().name
            self.open(name)
            return {"run": name}

        self.jobs.drop("demo")
        return self.jobs.start("demo", work)


def shelf_row(entry: dict[str, Any], generators: dict[str, Any]) -> dict[str, Any]:
    """An entry of the shelf as the page shows it; `older`: it was drawn by weights that the run no longer has."""
    document = entry["document"]
    measures = document.get("measures") or {}
    return {
        "id": entry["id"],
        "kept_at": entry["kept_at"],
        "note": document.get("note", ""),
        "recipe": document["recipe"],
        "setting": document["setting"],
        "futurism": measures.get("futurism"),
        "identity": measures.get("identity"),
        "verdict": (measures.get("novelty") or {}).get("verdict"),
        "older": document.get("generators") != generators,
    }


def _size(result: dict[str, Any]) -> int:
    return len(str(result))
