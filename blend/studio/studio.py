"""What is open in a studio: a run's session or the lack of one, what is kept, and what is being worked on.

In: the name of a run. Out: answers as plain values, which `server.py` puts into HTTP.
"""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from blend.designs.design_recipe import MAX_PARENTS, DesignRecipe, Parent, check_reference
from blend.designs.export import design_document
from blend.designs.parents import MAX_UPLOAD_BYTES
from blend.designs.session import DesignSession, open_session
from blend.generator.kinds import KINDS, Kind
from blend.studio.demo_job import DemoChild
from blend.studio.jobs import Job, Jobs
from blend.studio.latest_only_queue import LatestOnlyQueue
from blend.studio.shelf import Shelf, check_note
from harness.checkpoints.origin import other_training_set_note
from harness.errors import UserError
from harness.storage.json_files import read_json_or_none
from harness.storage.lru import LruCache
from harness.web.embed import picture_jpeg, picture_jpeg_uri, sweep_webp

GALLERY = {False: "Cars that training never saw", True: "Training pictures: the sets keep none aside"}
LARGE_PX, SMALL_PX = 768, 192  # widths, about: pictures are enlarged by whole numbers
MOTION_FRAMES, MOTION_PX = 21, 512
ANSWERS_IN_MEMORY_MB = 48


class Studio:
    """Attributes: session (None = there is no such run, and `fault` says why)."""

    def __init__(self, name: str, demo: DemoChild, root: Path = Path("runs")) -> None:
        self.name, self.demo, self.root = name, demo, root
        self.jobs, self.drawing = Jobs(), LatestOnlyQueue()
        self.session: DesignSession | None = None
        self.fault = ""
        self.closing = threading.Event()
        self.open(name)

    # ---- the run ----

    def open(self, name: str) -> None:
        """The run of this name, from now on; where there is none, `fault` says so."""
        self.name = name
        try:
            session = open_session(name, self.root)
        except UserError as error:
            self.session, self.fault = None, str(error)
            return
        self._shelf = Shelf(session.generator.folder / "studio")
        self._answers: LruCache[tuple[str, str], dict[str, Any]] = LruCache(ANSWERS_IN_MEMORY_MB * 2**20, _size)
        self.session, self.fault = session, ""
        self._run_id = session.generator.base.run.id
        self.jobs.drop("prepare")
        self.jobs.start("prepare", self._prepare)

    def page_facts(self) -> dict[str, Any]:
        """What the page is filled with: a run's size, classes and what it lacks, or why there is none; and, without one
        or beside the ready-made model, the demo's stages as `offer`."""
        facts = {"name": self.name, "most_upload_mb": MAX_UPLOAD_BYTES // 2**20, "most_parents": MAX_PARENTS}
        if self.session is None:
            return {**facts, "run": None, "fault": self.fault, "offer": self._demo_offer()}
        origin = (read_json_or_none(self.session.generator.base.run.env_path) or {}).get("pretrained", "")
        generator, lacking = self.session.generator, self.session.lacking
        run = {
            "height": generator.height,
            "width": generator.width,
            "classes": generator.base.class_names if generator.num_classes else [],
            "lacking": {key: lacking.get(key, "") for key in ("finetune", "encoder", "measures")},
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
        return {"plan": plan, "minutes": minutes, "at_work": self.demo.is_at_work()}

    def close(self) -> None:
        self.closing.set()
        self.drawing.close()
        self.jobs.close()

    def ready(self) -> DesignSession:
        if self.session is None:
            raise UserError(self.fault or "studio: no run is open; load the page anew")
        run = self.session.generator.base.run
        if not run.path.is_dir() or run.facts().get("id") != self._run_id:
            raise UserError(
                f"studio: {run.path} is another run now, or was renamed or removed; put it back, or start the studio "
                "again"
            )
        return self.session

    @property
    def shelf(self) -> Shelf:
        self.ready()
        return self._shelf

    def _prepare(self, job: Job) -> dict[str, Any]:
        """Measures and all styles, so that dials are quick."""
        session = self.ready()
        job.tell(0, 1, "learning to measure futurism")
        session.open_measures()

        def tell(done: int, of: int) -> None:
            job.tell(done, of, f"style dial: {done} of {of} positions prepared")
            self.jobs.give_way()

        session.prepare_styles(tell)
        return {"lacking": session.lacking}

    # ---- what a tab asks for while somebody drags: called in the drawing thread ----

    def design(self, recipe: DesignRecipe) -> dict[str, Any]:
        """The picture of a recipe, where its dials stand, and how futuristic it is."""

        def make() -> dict[str, Any]:
            drawn = self.ready().draw(recipe)
            futurism = self.ready().futurism(drawn.picture[None])
            return {
                "picture": picture_jpeg_uri(drawn.picture, LARGE_PX),
                "intensity": round(drawn.position.latent_weight, 4),
                "style": drawn.position.style,
                "futurism": None if futurism is None else round(futurism[0], 1),
                "reach": None if drawn.score_range is None else [round(value, 1) for value in drawn.score_range],
            }

        return self._answer("draw", recipe, make)

    def sweep(self, recipe: DesignRecipe) -> dict[str, Any]:
        """The same parents at all intensities."""

        def make() -> dict[str, Any]:
            places, pictures = self.ready().sweep(recipe)
            scores = self.ready().futurism(pictures) or [None] * len(places)
            rows = zip(places, pictures, scores, strict=True)
            return {
                "designs": [
                    {"intensity": place, "picture": picture_jpeg_uri(picture, SMALL_PX), "futurism": score}
                    for place, picture, score in rows
                ]
            }

        return self._answer("sweep", recipe, make)

    def measured(self, recipe: DesignRecipe) -> dict[str, Any]:
        """Futurism, identity, novelty with the nearest training pictures; `lacking` where it cannot be measured."""

        def make() -> dict[str, Any]:
            session = self.ready()
            measures = session.measure(recipe, session.draw(recipe).picture)
            if measures is None:
                return {"lacking": session.lacking["measures"]}
            novelty = measures["novelty"]
            near = {name: found for name, found in novelty.items() if isinstance(found, dict)}
            pictures = {name: session.training_picture(found["set"], found["row"]) for name, found in near.items()}
            shown = {
                name: {**near[name], "picture": None if picture is None else picture_jpeg_uri(picture, SMALL_PX)}
                for name, picture in pictures.items()
            }
            said = {key: value for key, value in novelty.items() if key not in near}
            return {**measures, "novelty": {**said, "nearest": shown}}

        return self._answer("measure", recipe, make)

    def _answer(self, kind: str, recipe: DesignRecipe, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """An answer belongs to what was asked for, so equal questions are answered once."""
        session, key = self.ready(), (kind, recipe.to_query())
        answers = self._answers
        answer = answers.get(key)
        if answer is None:
            complete = session.measures is not None or "measures" in session.lacking
            answer = make()
            if complete:  # one that lacks its figures, because measures are still being made, is not kept
                answers.keep(key, answer)
        return answer

    # ---- parents ----

    def first_recipe(self) -> DesignRecipe:
        """What is shown before anybody has asked for anything: two cars that were kept aside, if their latents are
        known, or one by seed."""
        parent_store = self.ready().parent_store
        refs: dict[Kind, Parent | None] = {}
        for side in KINDS:
            names = parent_store.held_out[side].names
            refs[side] = Parent(names[0]) if names and parent_store.find(side, names[0]) is not None else None
        if (ordinary := refs["ordinary"]) is None:
            return DesignRecipe((Parent("seed-1"),), () if "finetune" in self.ready().lacking else (Parent("seed-2"),))
        return DesignRecipe((ordinary,), (refs["concept"],) if refs["concept"] else ())

    def parent_jpeg(self, side: Kind, reference: str, large: bool = False) -> bytes:
        picture = self.ready().parent_store.picture(side, check_reference(reference))
        return picture_jpeg(picture, LARGE_PX if large else SMALL_PX)

    def start_search(self, side: Kind, reference: str, label: str | None, tab: str = "") -> Job:
        """The job that finds a parent's latent; done at once where it is known."""
        session = self.ready()
        check_reference(reference)
        if side == "concept" and "finetune" in session.lacking:
            raise UserError(session.lacking["finetune"])

        def work(job: Job) -> dict[str, Any]:
            job.tell(0, 1, "the encoder has a first look")

            def tell(done: int, of: int, drawn: np.ndarray, error: float) -> None:
                says = f"step {done} of {of}, picture error {error:.4f}"
                job.tell(done, of, says, picture=picture_jpeg_uri(drawn, SMALL_PX), error=error)

            found = session.parent_store.search(side, reference, label, tell)
            error = None if found.error is None else round(found.error, 4)
            first = None if found.first_error is None else round(found.first_error, 4)
            usual = None if error is None else session.parent_store.usual_error(side)
            return {
                "picture": picture_jpeg_uri(found.redrawn, SMALL_PX),
                "error": error,
                "first_error": first,
                "usual_error": None if usual is None else round(usual, 4),
            }

        asked = f"{id(session)} {side} {reference} {label}"
        key = f"parent-{hashlib.sha256(asked.encode()).hexdigest()[:24]}"
        known = session.parent_store.find(side, reference, label) is not None  # it need not stand in line then
        return self.jobs.start(key, work, at_once=known, tab=tab)

    # ---- the shelf, and files to take away: called in the drawing thread ----

    def document(self, recipe: DesignRecipe, note: str = "") -> tuple[np.ndarray, dict[str, Any]]:
        """(picture, document) of a design, measured."""
        session = self.ready()
        picture = session.draw(recipe).picture
        return picture, design_document(session, recipe, session.measure(recipe, picture), check_note(note))

    def sweep_webp(self, recipe: DesignRecipe) -> bytes:
        return sweep_webp(self.ready().sweep(recipe, MOTION_FRAMES)[1], MOTION_PX)

    def shelf_entries(self) -> list[dict[str, Any]]:
        """As the page shows them."""
        session = self.ready()
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
    """An entry of the shelf without its latents; `older`: it was drawn by weights that the run no longer has."""
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


def _size(answer: dict[str, Any]) -> int:
    return len(str(answer))
