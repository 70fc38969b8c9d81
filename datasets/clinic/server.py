"""The clinic's page as a web application for one person on this machine.

Other sites cannot use it through the browser: it answers to loopback names alone (against DNS rebinding), accepts
changes as JSON from its own pages alone, and allows no foreign content. Pictures are requested by sha256, not by path.
"""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from datasets.clean.manual_labels import SHA256, VIEWS, Decision
from datasets.clinic.cards import make_cards
from datasets.clinic.session import ChoiceError, Session
from datasets.clinic.sheets import SHEETS, SheetRequest, sheet_counts, sheet_groups, sheet_menu, to_pages
from datasets.pack.manifest import Manifest
from harness.web.app import RequestBody, make_local_app
from harness.web.guard import AccessRules
from harness.web.page import page_environment

HERE = Path(__file__).parent
STATIC = (HERE.parent / "report/templates/base.css", HERE / "static/clinic.css", HERE / "static/clinic.js")
PICTURE_PX = {"small": (240, 320), "large": (900, 1200)}  # height, width at most
TABS = {
    "border": ("Borderline", "The least certain predictions come first: a choice is worth most here."),
    "dropped": ("Dropped", "By reason; the nearest to the threshold come first."),
    "kept": ("Kept", "By view; the least certain come first."),
    "copies": ("Copies", "Each group starts with the copy that counts."),
    "changed": ("Changed", "Changes of the last rebuild."),
    "mine": ("Yours", "Everything decided by hand."),
}
NOTHING = {
    "border": "The view classifier saw no picture of this set.",
    "changed": "No rebuild in this session, or no changes.",
    "mine": "Nothing yet. Press k or d on a picture, or 1 to 9 for its view.",
}


class ExpectedChoice(RequestBody):
    verdict: str
    view: str


class NewChoice(RequestBody):
    sha256: str
    verdict: str | None = None
    view: str | None = None
    expect: ExpectedChoice | None = None


def make_app(session: Session) -> FastAPI:
    """The application of one session."""
    app = make_local_app(AccessRules("clinic"), STATIC)
    _add_pages(app, session)
    _add_actions(app, session)
    return app


def _add_pages(app: FastAPI, session: Session) -> None:
    template = page_environment(HERE / "templates").get_template("clinic.html.j2")

    @app.get("/")
    def sheet(request: Request, sheet: str = "border", only: str = "", source: str = "", page: int = 1) -> Response:
        if sheet not in SHEETS:
            raise ChoiceError(404, f"sheet: found {sheet[:40]!r}, allowed {', '.join(SHEETS)}")
        wanted = SheetRequest(sheet, only, request.query_params.get("class", ""), source)
        html = template.render(**_page(session, wanted, page))
        return HTMLResponse(html.encode("utf-8", "backslashreplace"))

    @app.get("/picture/{sha256}/{size}")
    def picture(sha256: str, size: str) -> Response:
        if not SHA256.fullmatch(sha256) or size not in PICTURE_PX:
            raise ChoiceError(404, "no such picture")
        # A sha256 names fixed bytes, so browsers may cache them.
        caching = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(session.picture(sha256, *PICTURE_PX[size]), media_type="image/jpeg", headers=caching)


def _add_actions(app: FastAPI, session: Session) -> None:
    @app.post("/choices")
    def choose(choice: NewChoice) -> dict[str, Any]:
        if not SHA256.fullmatch(choice.sha256):
            raise ChoiceError(422, "sha256: allowed 64 hex digits")
        expect = (choice.expect.verdict, choice.expect.view) if choice.expect else None
        before, now, decisions = session.choose(choice.sha256, choice.verdict, choice.view, expect)
        before = {"verdict": before[0], "view": before[1]}
        return {"verdict": now[0], "view": now[1], "before": before, **_counts(session, decisions)}

    @app.post("/rebuild", status_code=202)
    def rebuild(nothing: RequestBody) -> dict[str, Any]:
        session.start_rebuild()
        return {"state": "running"}

    @app.get("/status")
    def status() -> dict[str, Any]:
        run = session.rebuild
        state = "idle" if run is None else "running" if run.running else "failed" if run.error else "done"
        progress = {"seconds": run.seconds, "message": run.last_line, "error": run.error} if run else {}
        return {"state": state, "build": session.built.number} | progress | _counts(session, session.decisions())


def _page(session: Session, wanted: SheetRequest, page: int) -> dict[str, Any]:
    built, decisions = session.built, session.decisions()
    chosen = {"changed": list(built.changed), "mine": session.mine(decisions)}
    pages = to_pages(sheet_groups(built.manifest, wanted, built.threshold, chosen.get(wanted.sheet, ())))
    page = min(max(1, page), len(pages))
    counts = sheet_counts(built.manifest) | {sheet: len(found) for sheet, found in chosen.items()}

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
        "name": session.plan.data.set,
        "decisions": str(session.plan.decisions_path),
        "built": built,
        "wanted": wanted,
        "tabs": [(key, text, counts[key]) for key, (text, _) in TABS.items()],
        "lead": TABS[wanted.sheet][1],
        "nothing": NOTHING.get(wanted.sheet, "No picture here."),
        "menu": sheet_menu(built.manifest, wanted.sheet),
        "classes": _names(built.manifest, "class", 500),
        "sources": _names(built.manifest, "source", 50),
        "views": VIEWS,
        "groups": make_cards(built, pages[page - 1], decisions, wanted.sheet),
        "page": page,
        "pages": len(pages),
        "link": link,
        **_counts(session, decisions),
    }


def _names(manifest: Manifest, column: str, limit: int) -> list[str]:
    query = f"select distinct {column} from manifest where {column} not null order by 1 limit {limit}"
    return [name for (name,) in manifest.rows(query)]


def _counts(session: Session, decisions: dict[str, Decision]) -> dict[str, Any]:
    text = "\n".join(f"{one.sha256} {one.verdict} {one.view}" for one in decisions.values())
    revision = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"choices": len(decisions), "waiting": session.waiting(decisions), "revision": revision}
