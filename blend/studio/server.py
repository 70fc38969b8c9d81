"""The studio's page as a web application: it translates requests, and `studio.py` answers them.

No other site may use it through a browser (`harness/web/guard.py`); no path ever comes from a request: pictures are
asked for by reference, uploads come as bare bytes without a name.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from blend.designs.design_recipe import MOST_PARENTS, Recipe, Side, text_to_recipe
from blend.designs.session import NeedsParent
from blend.studio.exports import add_exports
from blend.studio.jobs import Job
from blend.studio.latest_only_queue import Superseded
from blend.studio.page import page_facts
from blend.studio.shelf import IDENTITY
from blend.studio.studio import Studio, shelf_row
from blend.studio.uploads import MOST_UPLOAD_BYTES
from harness.cli import DISK_ERRORS
from harness.errors import UserError
from harness.images.decode import PictureError
from harness.web.app import first_fault, refusal
from harness.web.guard import Body, Guard, Rules
from harness.web.page import page_environment

HERE = Path(__file__).parent
KINDS = {".js": "text/javascript", ".css": "text/css"}
STATIC = {path.name: (path, KINDS[path.suffix]) for path in sorted((HERE / "static").iterdir()) if path.suffix in KINDS}
UPLOAD = Body("application/octet-stream", MOST_UPLOAD_BYTES)
HEARTBEAT_SEC = 10.0
MOST_TAB = 40  # characters of a tab's name


class Search(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    side: Side
    reference: str
    label: str | None = None


class Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    recipe: str
    note: str = ""


class Note(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    note: str


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


def make_app(studio: Studio, names: tuple[str, ...] = (), addresses: bool = False) -> FastAPI:
    """The application of one studio. `names`, `addresses`: as in `Rules`, beside those of loopback."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, rules=Rules("studio", names, addresses, {"/uploads": UPLOAD}))
    _add_page(app, studio)
    _add_designs(app, studio)
    _add_parents(app, studio)
    _add_jobs(app, studio)
    _add_shelf(app, studio)
    add_exports(app, studio)
    _add_refusals(app)
    return app


async def in_drawing_thread(studio: Studio, tab: str, kind: str, work: Callable[[], Any]) -> Any:
    return await asyncio.wrap_future(studio.drawing.ask(tab[:MOST_TAB], kind, work))


def _add_page(app: FastAPI, studio: Studio) -> None:
    template = page_environment(HERE / "templates").get_template("studio.html.j2")

    @app.get("/")
    def page() -> Response:
        return HTMLResponse(template.render(most_parents=MOST_PARENTS, **page_facts(studio)))

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404, "no such file")
        path, kind = STATIC[name]
        return Response(path.read_bytes(), media_type=kind)


def _add_designs(app: FastAPI, studio: Studio) -> None:
    async def answer(request: Request, kind: str, ask: Callable[[Recipe], dict[str, Any]]) -> Any:
        recipe, tab = text_to_recipe(request.url.query), request.query_params.get("tab", "")
        try:
            return await in_drawing_thread(studio, tab, kind, lambda: ask(recipe))
        except Superseded:
            return {"superseded": True}
        except NeedsParent as needed:
            return {"needs": {"side": needed.side, "reference": needed.reference}}

    @app.get("/draw")
    async def draw(request: Request) -> Any:
        return await answer(request, "draw", studio.design)

    @app.get("/sweep")
    async def sweep(request: Request) -> Any:
        return await answer(request, "sweep", studio.sweep)

    @app.get("/measure")
    async def measure(request: Request) -> Any:
        return await answer(request, "measure", studio.measured)


def _add_parents(app: FastAPI, studio: Studio) -> None:
    @app.post("/uploads")
    async def upload(request: Request) -> Any:
        content = bytearray()
        async for part in request.stream():  # the guard counts, and ends it when it is too long
            content += part
        return {"reference": await run_in_threadpool(studio.keep_upload, bytes(content))}

    @app.get("/gallery/{side}")
    def gallery(side: Side) -> Any:
        return {"references": studio.gallery(side)}

    @app.get("/parent/{side}/{reference}")
    def parent(side: Side, reference: str, large: bool = False) -> Response:
        # A reference tells its bytes as long as the run stays as it is: kept for a while, not for ever.
        kept = {"Cache-Control": "private, max-age=300"}
        return Response(studio.parent_jpeg(side, reference, large), media_type="image/jpeg", headers=kept)


def _add_jobs(app: FastAPI, studio: Studio) -> None:
    def existing(key: str) -> Job:
        if (job := studio.jobs.get(key)) is None:
            raise HTTPException(404, "this job is not known (any more); ask for it again")
        return job

    @app.post("/jobs/parent", status_code=202)
    def search(asked: Search) -> Any:
        return studio.start_search(asked.side, asked.reference, asked.label or None).snapshot()

    @app.post("/jobs/demo", status_code=202)
    def demo(nothing: Nothing) -> Any:
        return studio.start_demo().snapshot()

    @app.post("/jobs/{key}/cancel")
    def cancel(key: str, nothing: Nothing) -> Any:
        job = existing(key)
        job.cancel()
        return job.snapshot()

    @app.get("/jobs/{key}")
    async def events(key: str) -> Response:
        return StreamingResponse(_events(studio, existing(key)), media_type="text/event-stream")


async def _events(studio: Studio, job: Job) -> AsyncIterator[str]:
    """Server-sent events: what the job tells, until it is over or the studio closes; a comment when all is quiet, so
    that a tab that has gone is noticed."""
    told = job.follow()
    waiting: asyncio.Future[dict[str, Any]] | None = None
    try:
        while not studio.closing.is_set():
            if waiting is None:
                waiting = asyncio.ensure_future(anext(told))
            done, _ = await asyncio.wait([waiting], timeout=HEARTBEAT_SEC)
            if not done:
                yield ": still here\n\n"
                continue
            waiting, now = None, waiting.result()
            yield f"data: {json.dumps(now)}\n\n"
            if now["state"] in ("done", "failed", "cancelled"):
                return
    finally:
        if waiting is not None:
            waiting.cancel()


def _add_shelf(app: FastAPI, studio: Studio) -> None:
    @app.get("/shelf")
    def shelf() -> Any:
        return {"designs": studio.shelf_entries()}

    @app.post("/shelf")
    async def keep(kept: Kept) -> Any:
        recipe = text_to_recipe(kept.recipe)
        entry = await in_drawing_thread(studio, f"keep {id(kept)}", "other", lambda: studio.keep(recipe, kept.note))
        return shelf_row(entry, entry["document"]["generators"])

    @app.post("/shelf/{identity}/note")
    def note(identity: str, note: Note) -> Any:
        entry = studio.shelf.write_note(checked(identity), note.note)
        return shelf_row(entry, entry["document"]["generators"])

    @app.post("/shelf/{identity}/remove")
    def remove(identity: str, nothing: Nothing) -> Any:
        studio.shelf.remove(checked(identity))
        return {"removed": identity}

    @app.post("/shelf/{identity}/restore")
    def restore(identity: str, nothing: Nothing) -> Any:
        studio.shelf.restore(checked(identity))
        return {"restored": identity}

    def checked(identity: str) -> str:
        if not IDENTITY.fullmatch(identity):
            raise HTTPException(404, "no such design")
        return identity


def _disk_refusal(_: Request, error: Exception) -> Response:
    """A full, write-protected or failing disk; any other error of this kind is our bug."""
    assert isinstance(error, OSError)
    if error.errno not in DISK_ERRORS:
        raise error
    where = f"{error.filename}: " if error.filename else ""
    return refusal(507, f"{where}{error.strerror}; nothing half-made is kept, mend this and try again")


def _add_refusals(app: FastAPI) -> None:
    app.add_exception_handler(UserError, lambda _, error: refusal(409, str(error)))
    app.add_exception_handler(OSError, _disk_refusal)
    app.add_exception_handler(PictureError, lambda _, error: refusal(409, f"a picture cannot be read ({error})"))
    app.add_exception_handler(ClientDisconnect, lambda _, error: Response(status_code=400))  # nobody hears it
    app.add_exception_handler(NeedsParent, lambda _, error: refusal(409, f"{error}: is not inverted yet"))
    app.add_exception_handler(RequestValidationError, lambda _, error: refusal(422, first_fault(error)))
    app.add_exception_handler(
        HTTPException, lambda _, error: refusal(getattr(error, "status_code", 400), str(getattr(error, "detail", "")))
    )
