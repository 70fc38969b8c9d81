"""The studio's web application: it translates requests, `studio.py` answers them.

No other site can use it through a browser (`harness/web/guard.py`). No path ever comes from a request: pictures are
named by reference, uploads are bare bytes without a name.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from blend.designs.design_recipe import DesignRecipe, text_to_recipe
from blend.designs.parents import MAX_UPLOAD_BYTES
from blend.designs.session import NotInverted
from blend.generator.kinds import Kind
from blend.studio.exports import add_exports
from blend.studio.jobs import FINAL_STATES, Job
from blend.studio.latest_only_queue import MAX_TAB_CHARS, Superseded
from blend.studio.studio import Studio, shelf_row
from harness.images.decode import PictureError
from harness.storage.json_files import to_json
from harness.web.app import RequestBody, make_local_app, refusal
from harness.web.guard import AccessRules, Body
from harness.web.page import page_environment

HERE = Path(__file__).parent
UPLOAD = Body("application/octet-stream", MAX_UPLOAD_BYTES)
HEARTBEAT_SEC = 10.0
POLL_EVERY_SEC = 0.05


class SearchRequest(RequestBody):
    side: Kind
    reference: str
    label: str | None = None
    tab: str = Field("", max_length=MAX_TAB_CHARS)


class KeepRequest(RequestBody):
    recipe: str
    note: str = ""


class NoteRequest(RequestBody):
    note: str


def make_app(studio: Studio, names: tuple[str, ...] = (), addresses: bool = False) -> FastAPI:
    """The application of one studio. `names`, `addresses`: as in `AccessRules`, in addition to those of loopback."""
    app = make_local_app(AccessRules("studio", names, addresses, {"/uploads": UPLOAD}), (HERE / "static").iterdir())
    _add_page(app, studio)
    _add_designs(app, studio)
    _add_parents(app, studio)
    _add_jobs(app, studio)
    _add_shelf(app, studio)
    add_exports(app, studio)
    app.add_exception_handler(PictureError, lambda _, error: refusal(409, f"a picture cannot be read ({error})"))
    app.add_exception_handler(ClientDisconnect, lambda _, error: Response(status_code=400))
    app.add_exception_handler(NotInverted, lambda _, error: refusal(409, f"{error}: is not inverted yet"))
    return app


def _add_page(app: FastAPI, studio: Studio) -> None:
    template = page_environment(HERE / "templates").get_template("studio.html.j2")

    @app.get("/")
    def page() -> Response:
        return HTMLResponse(template.render(studio.page_facts()))


def _add_designs(app: FastAPI, studio: Studio) -> None:
    async def respond(request: Request, kind: str, make: Callable[[DesignRecipe], dict[str, Any]]) -> Any:
        recipe, tab = text_to_recipe(request.url.query), request.query_params.get("tab", "")
        try:
            return await studio.queue.run(lambda: make(recipe), kind, tab)
        except Superseded:
            return {"superseded": True}
        except NotInverted as parent:
            return {"not_inverted": {"side": parent.side, "reference": parent.reference}}

    @app.get("/draw")
    async def draw(request: Request) -> Any:
        return await respond(request, "draw", studio.design)

    @app.get("/sweep")
    async def sweep(request: Request) -> Any:
        return await respond(request, "sweep", studio.sweep)

    @app.get("/measure")
    async def measure(request: Request) -> Any:
        return await respond(request, "measure", studio.measure)


def _add_parents(app: FastAPI, studio: Studio) -> None:
    @app.post("/uploads")
    async def upload(request: Request) -> Any:
        content = bytearray()
        async for part in request.stream():  # the guard bounds its length
            content += part
        return {"reference": await run_in_threadpool(studio.require_session().parent_store.keep_upload, bytes(content))}

    @app.get("/gallery/{side}")
    def gallery(side: Kind) -> Any:
        return {"references": list(studio.require_session().parent_store.held_out[side].names)}

    @app.get("/parent/{side}/{reference}")
    def parent(side: Kind, reference: str, large: bool = False) -> Response:
        headers = {"Cache-Control": "private, max-age=300"}  # a reference has the same picture until the run changes
        return Response(studio.parent_jpeg(side, reference, large), media_type="image/jpeg", headers=headers)


def _add_jobs(app: FastAPI, studio: Studio) -> None:
    def existing(key: str) -> Job:
        if (job := studio.jobs.get(key)) is None:
            raise HTTPException(404, "this job is unknown or was forgotten; start it again")
        return job

    @app.post("/jobs/parent", status_code=202)
    def search(request: SearchRequest) -> Any:
        job = studio.start_search(request.side, request.reference, request.label or None, request.tab)
        return job.snapshot()

    @app.post("/jobs/demo", status_code=202)
    def demo(nothing: RequestBody) -> Any:
        return studio.start_demo().snapshot()

    @app.post("/jobs/{key}/cancel")
    def cancel(key: str, nothing: RequestBody) -> Any:
        job = existing(key)
        job.cancel()
        return job.snapshot()

    @app.get("/jobs/{key}")
    async def events(key: str) -> Response:
        return StreamingResponse(_events(studio, existing(key)), media_type="text/event-stream")


async def _events(studio: Studio, job: Job) -> AsyncIterator[str]:
    """Server-sent events: the job whenever it has changed, until it ends or the studio closes; after HEARTBEAT_SEC
    without a change a comment, so that a closed tab is noticed."""
    sent, sent_at_sec = None, 0.0
    while not studio.closing.is_set():
        now = job.snapshot()
        if now != sent:
            yield f"data: {to_json(now)}\n\n"
            if now["state"] in FINAL_STATES:
                return
            sent, sent_at_sec = now, time.monotonic()
        elif time.monotonic() - sent_at_sec >= HEARTBEAT_SEC:
            yield ": heartbeat\n\n"
            sent_at_sec = time.monotonic()
        await asyncio.sleep(POLL_EVERY_SEC)


def _add_shelf(app: FastAPI, studio: Studio) -> None:
    @app.get("/shelf")
    def shelf() -> Any:
        return {"designs": studio.shelf_entries()}

    @app.post("/shelf")
    async def keep(request: KeepRequest) -> Any:
        recipe = text_to_recipe(request.recipe)
        entry = await studio.queue.run(lambda: studio.shelf.keep(*studio.document(recipe, request.note)))
        return shelf_row(entry, entry["document"]["generators"])

    @app.post("/shelf/{identity}/note")
    def note(identity: str, note: NoteRequest) -> Any:
        entry = studio.shelf.write_note(identity, note.note)
        return shelf_row(entry, entry["document"]["generators"])

    @app.post("/shelf/{identity}/remove")
    def remove(identity: str, nothing: RequestBody) -> Any:
        studio.shelf.remove(identity)
        return {"removed": identity}

    @app.post("/shelf/{identity}/restore")
    def restore(identity: str, nothing: RequestBody) -> Any:
        studio.shelf.restore(identity)
        return {"restored": identity}
