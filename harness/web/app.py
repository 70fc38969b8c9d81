"""The FastAPI base of clinic and studio: the guard, static files, errors as one line of JSON."""

from collections.abc import Iterable
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from harness.cli import DISK_ERRORS
from harness.config.validation import details_to_problems
from harness.errors import UserError
from harness.web.guard import AccessRules, Guard

MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}


class RequestBody(BaseModel):
    """Base of JSON request bodies: only declared fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


def make_local_app(rules: AccessRules, files: Iterable[Path]) -> FastAPI:
    """An application behind the guard; its only route is `/static/<name of one of files>`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, rules=rules)
    static = {path.name: path for path in files if path.suffix in MEDIA_TYPES}

    @app.get("/static/{name}")
    def static_file(name: str) -> Response:
        if name not in static:
            raise HTTPException(404, "no such file")
        return Response(static[name].read_bytes(), media_type=MEDIA_TYPES[static[name].suffix])

    app.add_exception_handler(UserError, lambda _, error: refusal(409, str(error)))
    app.add_exception_handler(OSError, _disk_refusal)
    app.add_exception_handler(RequestValidationError, lambda _, error: refusal(422, _first_problem(error)))
    app.add_exception_handler(
        HTTPException, lambda _, error: refusal(getattr(error, "status_code", 400), str(getattr(error, "detail", "")))
    )
    return app


def refusal(status: int, text: str) -> JSONResponse:
    """{"error": text in one line}; undecodable bytes of file names are escaped."""
    line = " ".join(text.split())
    return JSONResponse({"error": line.encode("utf-8", "backslashreplace").decode()}, status)


def _first_problem(error: Exception) -> str:
    """The first validation error of a request."""
    assert isinstance(error, RequestValidationError)
    return next(iter(details_to_problems(error.errors(), {}).values()))


def _disk_refusal(_: Request, error: Exception) -> Response:
    """A full, read-only or failing disk; any other OSError is a bug."""
    assert isinstance(error, OSError)
    if error.errno not in DISK_ERRORS:
        raise error
    where = f"{error.filename}: " if error.filename else ""
    return refusal(507, f"{where}{error.strerror}; no partial files are kept, fix this and try again")
