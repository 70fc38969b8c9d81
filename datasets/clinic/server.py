"""The clinic's page as a web application for one person on this machine.

No other site may use it through the person's browser: answers only to loopback names (so a name that was pointed here
gets nothing), takes changes only as JSON from its own pages, and lets no foreign content into them. Pictures are
asked for by their sha256, never by a path.
"""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from datasets.clean.manual_labels import SHA256, VIEWS, Decision
from datasets.clinic.cards import group_copies, make_cards
from datasets.clinic.session import ChoiceError, Session
from datasets.clinic.sheets import SHEETS, Wanted, sheet_choices, sheet_counts, sheet_rows
from harness.errors import UserError
from harness.web.app import first_fault, refusal
from harness.web.guard import Guard, Rules
from harness.web.page import page_environment

HERE = Path(__file__).parent
STATIC = {
    "look.css": (HERE.parent / "report" / "templates" / "look.css", "text/css"),
    "clinic.css": (HERE / "static" / "clinic.css", "text/css"),
    "clinic.js": (HERE / "static" / "clinic.js", "text/javascript"),
}
PICTURE_PX = {"small": (240, 320), "large": (900, 1200)}  # height, width at most
PAGE_CARDS = 48
TABS = {
    "border": ("Borderline", "What the sorter was least sure of comes first: here a choice is worth most."),
    "dropped": ("Dropped", "By reason; within one, what was nearest to be kept comes first."),
    "kept": ("Kept", "By view; the least sure view comes first."),
    "copies": ("Copies", "Each group begins with the copy that counts."),
    "changed": ("Changed", "What the last rebuild made otherwise than the one before."),
    "mine": ("Yours", "Everything that was decided by hand."),
}
NOTHING = {
    "border": "The sorter judged no picture of this set.",
    "changed": "Nothing: no rebuild in this session, or it changed nothing.",
    "mine": "Nothing yet. Press k or d on a picture, or 1 to 9 for its view.",
}


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    verdict: str
    view: str


class NewChoice(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    sha256: str
    verdict: str | None = None
    view: str | None = None
    expect: Said | None = None


class Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


def make_app(session: Session) -> FastAPI:
    """The application of one session."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, rules=Rules("clinic"))
    _add_looking(app, session)
    _add_deciding(app, session)
    app.add_exception_handler(ChoiceError, lambda _, error: refusal(getattr(error, "status", 400), str(error)))
    app.add_exception_handler(UserError, lambda _, error: refusal(409, str(error)))
    app.add_exception_handler(RequestValidationError, lambda _, error: refusal(422, first_fault(error)))
    return app


def _add_looking(app: FastAPI, session: Session) -> None:
    template = page_environment(HERE / "templates").get_template("clinic.html.j2")

    @app.get("/")
    def sheet(request: Request, sheet: str = "border", only: str = "", source: str = "", page: int = 1) -> Response:
        if sheet not in SHEETS:
            raise ChoiceError(404, f"sheet: found {sheet[:40]!r}, allowed {', '.join(SHEETS)}")
        wanted = Wanted(sheet, only, request.query_params.get("class", ""), source)
        html = template.render(**_page(session, wanted, page))
        return HTMLResponse(html.encode("utf-8", "backslashreplace"))

    @app.get("/picture/{sha256}/{size}")
    def picture(sha256: str, size: str) -> Response:
        if not SHA256.fullmatch(sha256) or size not in PICTURE_PX:
            raise ChoiceError(404, "no such picture")
        # The bytes are told by their name, so a browser need not ask again.
        kept = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(session.picture(sha256, *PICTURE_PX[size]), media_type="image/jpeg", headers=kept)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            raise ChoiceError(404, "no such file")
        path, kind = STATIC[name]
        return Response(path.read_bytes(), media_type=kind)


def _add_deciding(app: FastAPI, session: Session) -> None:
    @app.post("/choices")
    def choose(choice: NewChoice) -> dict[str, Any]:
        if not SHA256.fullmatch(choice.sha256):
            raise ChoiceError(422, "sha256: allowed 64 hex digits")
        expect = (choice.expect.verdict, choice.expect.view) if choice.expect else None
        before, now, decisions = session.choose(choice.sha256, choice.verdict, choice.view, expect)
        said = {"verdict": now[0], "view": now[1], "before": {"verdict": before[0], "view": before[1]}}
        return said | _counts(session, decisions)

    @app.post("/rebuild", status_code=202)
    def rebuild(nothing: Nothing) -> dict[str, Any]:
        session.start_rebuild()
        return {"state": "running"}

    @app.get("/status")
    def status() -> dict[str, Any]:
        run = session.rebuild
        state = "idle" if run is None else "running" if run.running else "failed" if run.fault else "done"
        told = {"seconds": run.seconds, "says": run.says, "fault": run.fault} if run else {}
        return {"state": state, "build": session.built.number} | told | _counts(session, session.decisions())


def _page(session: Session, wanted: Wanted, page: int) -> dict[str, Any]:
    built, decisions = session.built, session.decisions()
    mine, changed = session.mine(decisions), np.array(sorted(built.changed), np.int64)
    rows = sheet_rows(built.index, wanted, built.threshold, changed, mine)
    parts = _parts(rows, built.index.original) if wanted.sheet == "copies" else _even_parts(rows)
    page = min(max(1, page), max(1, len(parts)))
    counts = sheet_counts(built.index, changed, mine)

    cards = make_cards(built, parts[page - 1].tolist() if parts else [], decisions, wanted.sheet)

    def link(**other: Any) -> str:
        query = {
            "sheet": wanted.sheet,
            "only": wanted.only,
            "class": wanted.class_,
            "source": wanted.source,
            "page": page,
        }
        return "/?" + urlencode({key: value for key, value in (query | other).items() if value}, errors="surrogatepass")

    return {
        "name": session.name,
        "decisions": str(session.decisions_path),
        "built": built,
        "wanted": wanted,
        "tabs": [(key, text, counts[key]) for key, (text, _) in TABS.items()],
        "lead": TABS[wanted.sheet][1],
        "nothing": NOTHING.get(wanted.sheet, "No picture here."),
        "menu": sheet_choices(built.index, wanted.sheet),
        "classes": sorted(built.index.classes.names)[:500],
        "sources": sorted(built.index.sources.names)[:50],
        "views": VIEWS,
        "cards": cards,
        "groups": group_copies(cards) if wanted.sheet == "copies" else [],
        "page": page,
        "pages": len(parts),
        "link": link,
        **_counts(session, decisions),
    }


def _even_parts(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + PAGE_CARDS] for start in range(0, len(rows), PAGE_CARDS)]


def _parts(rows: np.ndarray, original: np.ndarray) -> list[np.ndarray]:
    """Pages of whole groups of copies, about PAGE_CARDS on each."""
    starts = np.flatnonzero(original[rows] < 0).tolist()
    parts, begin = [], 0
    for start in [*starts[1:], len(rows)]:
        if start - begin >= PAGE_CARDS or start == len(rows):
            parts.append(rows[begin:start])
            begin = start
    return parts if len(rows) else []


def _counts(session: Session, decisions: dict[str, Decision]) -> dict[str, Any]:
    text = "\n".join(f"{one.sha256} {one.verdict} {one.view}" for one in decisions.values())
    revision = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"choices": len(decisions), "waiting": session.waiting(decisions), "revision": revision}
