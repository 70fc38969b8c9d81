"""Files to take away from the studio: the exact picture, its JSON, its sweep in motion, a sheet of the shelf."""

from typing import Any

from fastapi import FastAPI, Request, Response

from blend.designs.contact_sheet import draw_contact_sheet
from blend.designs.design_recipe import DesignRecipe, text_to_recipe
from blend.designs.export import design_png
from blend.studio.studio import LARGE_PX, SMALL_PX, Studio
from harness.errors import UserError
from harness.images.decode import encode_png
from harness.storage.json_files import to_json
from harness.web.embed import picture_jpeg

MAX_PER_SHEET = 60


def add_exports(app: FastAPI, studio: Studio) -> None:
    def recipe_of(request: Request) -> DesignRecipe:
        return text_to_recipe(request.url.query)

    @app.get("/export/design.png")
    async def design_as_png(request: Request) -> Response:
        recipe = recipe_of(request)
        content = await studio.drawing.answer(lambda: design_png(*studio.document(recipe)))
        return _file(content, "image/png", f"design-{recipe.sha256[:8]}.png")

    @app.get("/export/design.json")
    async def design_as_json(request: Request) -> Response:
        recipe = recipe_of(request)
        content = await studio.drawing.answer(lambda: _json(studio.document(recipe)[1]))
        return _file(content, "application/json", f"design-{recipe.sha256[:8]}.json")

    @app.get("/export/sweep.webp")
    async def sweep_as_webp(request: Request) -> Response:
        recipe = recipe_of(request)
        content = await studio.drawing.answer(lambda: studio.sweep_webp(recipe))
        return _file(content, "image/webp", f"sweep-{recipe.sha256[:8]}.webp")

    _add_shelf_exports(app, studio)


def _add_shelf_exports(app: FastAPI, studio: Studio) -> None:
    @app.get("/export/shelf.json")
    def shelf_as_json() -> Response:
        return _file(_json([entry["document"] for entry in studio.shelf.entries()]), "application/json", "shelf.json")

    @app.get("/export/shelf-sheet.png")
    def shelf_as_sheet(request: Request) -> Response:
        entries = studio.shelf.entries()
        if asked := request.query_params.getlist("id"):
            entries = [entry for entry in entries if entry["id"] in asked]
        if not entries:
            raise UserError("sheet: there is no design on the shelf yet; keep one first")
        entries = entries[:MAX_PER_SHEET]
        pictures, documents = zip(*((studio.shelf.picture(one["id"]), one["document"]) for one in entries), strict=True)
        sheet = draw_contact_sheet(f"Carforge · {studio.name}", pictures, documents)
        return _file(encode_png(sheet), "image/png", "sheet.png")

    @app.get("/export/shelf/{identity}.png")
    def kept_as_png(identity: str) -> Response:
        entry = studio.shelf.entry(identity)
        content = design_png(studio.shelf.picture(identity), entry["document"])
        return _file(content, "image/png", f"design-{identity[:8]}.png")

    @app.get("/export/shelf/{identity}.json")
    def kept_as_json(identity: str) -> Response:
        document = studio.shelf.entry(identity)["document"]
        return _file(_json(document), "application/json", f"design-{identity[:8]}.json")

    @app.get("/shelf/{identity}.jpg")
    def kept_picture(identity: str, large: bool = False) -> Response:
        picture = studio.shelf.picture(identity)
        kept = {"Cache-Control": "private, max-age=86400, immutable"}  # named by its pixels
        return Response(
            picture_jpeg(picture, LARGE_PX if large else 2 * SMALL_PX), media_type="image/jpeg", headers=kept
        )


def _json(value: Any) -> bytes:
    return (to_json(value, indent=1) + "\n").encode()


def _file(content: bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
