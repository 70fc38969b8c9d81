"""What the applications of clinic and studio share: refusals as one line of JSON."""

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from harness.config.validation import details_to_faults


def refusal(status: int, text: str) -> JSONResponse:
    """{"error": text in one line}; what is no Unicode (of a file's name) is escaped."""
    line = " ".join(text.split())
    return JSONResponse({"error": line.encode("utf-8", "backslashreplace").decode()}, status)


def first_fault(error: Exception) -> str:
    """The first thing that is wrong with a request's content."""
    assert isinstance(error, RequestValidationError)
    return next(iter(details_to_faults(error.errors(), {}).values()))
