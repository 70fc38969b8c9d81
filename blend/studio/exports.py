"""Downloads from the studio: a design as an exact PNG or as JSON, its sweep as an animation, a sheet of the shelf."""

from typing import Any, Literal

import numpy as np
from fastapi import FastAPI, Request, Response

from blend.designs.contact_sheet import draw_contact_sheet
from blend.designs.design_recipe import text_to_recipe
from blend.designs.export import design_png
from blend.studio.studio import LARGE_PX, SMALL_PX, Studio
from harness.errors import UserError
from harness.images.decode import encode_png
from harness.storage.json_files import to_json
from harness.web.embed import picture_jpeg

MAX_PER_SHEET = 60
Format = Literal["png", "json"]


def add_exports(app: FastAPI, studio: Studio) -> None:
    @app.get("/export/design.{form}")
    async def design(request: Request, form: Format) -> Response:
        recipe = text_to_recipe(request.url.query)
        content = await studio.queue.run(lambda: _design_file(*studio.document(recipe), form))
        return _download(content, f"design-{recipe.sha256[:8]}.{form}")

    @app.get("/export/sweep.webp")
    async def sweep(request: Request) -> Response:
        recipe = text_to_recipe(request.url.query)
        return _download(await studio.queue.run(lambda: studio.sweep_webp(recipe)), f"sweep-{recipe.sha256[:8]}.webp")

    @app.get("/export/shelf.json")
    def shelf_as_json() -> Response:
        return _download(_json([entry["document"] for entry in studio.shelf.entries()]), "shelf.json")

    @app.get("/export/shelf-sheet.png")
    def shelf_as_sheet(request: Request) -> Response:
        entries = studio.shelf.entries()
        if chosen := request.query_params.getlist("id"):
            entries = [entry for entry in entries if entry["id"] in chosen]
        if not entries:
            raise UserError("sheet: there is no design on the shelf yet; keep one first")
        entries = entries[:MAX_PER_SHEET]
        pictures = [studio.shelf.picture(entry["id"]) for entry in entries]
        documents = [entry["document"] for entry in entries]
        return _download(encode_png(draw_contact_sheet(f"Carforge · {studio.name}", pictures, documents)), "sheet.png")

    @app.get("/export/shelf/{identity}.{form}")
    def kept_design(identity: str, form: Format) -> Response:
        document, picture = studio.shelf.entry(identity)["document"], studio.shelf.picture(identity)
        return _download(_design_file(picture, document, form), f"design-{identity[:8]}.{form}")

    @app.get("/shelf/{identity}.jpg")
    def kept_picture(identity: str, large: bool = False) -> Response:
        content = picture_jpeg(studio.shelf.picture(identity), LARGE_PX if large else 2 * SMALL_PX)
        headers = {"Cache-Control": "private, max-age=86400, immutable"}  # the identity is a hash of the pixels
        return Response(content, media_type="image/jpeg", headers=headers)


def _design_file(picture: np.ndarray, document: dict[str, Any], form: Format) -> bytes:
    return design_png(picture, document) if form == "png" else _json(document)


def _json(value: Any) -> bytes:
    return (to_json(value, indent=1) + "\n").encode()


def _download(content: bytes, name: str) -> Response:
    form = name.rpartition(".")[2]
    kind = "application/json" if form == "json" else f"image/{form}"
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
