"""What the applications of clinic and studio share: the guard, scripts and styles, refusals as one line of JSON."""

from collections.abc import Iterable
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from harness.errors import UserError
from harness.web.guard import Guard, Rules

MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}


class EmptyBody(BaseModel):
    """Of a request that says everything by its path."""

    model_config = ConfigDict(extra="forbid")


def make_local_app(rules: Rules, files: Iterable[Path]) -> FastAPI:
    """An application behind the guard, without routes of its own but `/static/<name of one of files>`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, rules=rules)
    static = {path.name: path for path in files}

    @app.get("/static/{name}")
    def static_file(name: str) -> Response:
        if name not in static:
            raise HTTPException(404, "no such file")
        return Response(static[name].read_bytes(), media_type=MEDIA_TYPES[static[name].suffix])

    app.add_exception_handler(UserError, lambda _, error: refusal(409, str(error)))
    app.add_exception_handler(RequestValidationError, lambda _, error: refusal(422, first_fault(error)))
    app.add_exception_handler(
        HTTPException, lambda _, error: refusal(getattr(error, "status_code", 400), str(getattr(error, "detail", "")))
    )
    return app


def refusal(status: int, text: str) -> JSONResponse:
    """{"error": text in one line}; what is no Unicode (of a file's name) is escaped."""
    line = " ".join(text.split())
    return JSONResponse({"error": line.encode("utf-8", "backslashreplace").decode()}, status)


def first_fault(error: Exception) -> str:
    """The first thing that is wrong with a request's content."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
