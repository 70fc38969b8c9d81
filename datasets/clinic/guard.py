"""What stands before every answer of a page that is for this machine alone.

A web site that somebody visits can send requests here through the browser. So: only loopback names as Host (a foreign
name that was made to point to 127.0.0.1 is refused), changes only from our own page (Origin is our own address) and
only as JSON, small bodies, and headers that allow no foreign content.
"""

from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST_BODY_BYTES = 16_384
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        # Nothing else is spoken here: a web socket is closed by the server when nobody answers.

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = {**HEADERS, "Cache-Control": "no-store"}
                pairs = ((name.encode(), value.encode()) for name, value in added.items())
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in pairs if pair[0].lower() not in present),
                ]
            await send(message)

        refusal = _refusal(scope)
        if refusal is None:
            await self.app(scope, receive, send_with_headers)
        else:
            status, text = refusal
            await JSONResponse({"error": text}, status)(scope, receive, send_with_headers)


def _refusal(scope: Scope) -> tuple[int, str] | None:
    """(status, why) for a request that is not answered."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    hosts, origins = headers.get("host", []), headers.get("origin", [])
    if len(hosts) != 1 or _host_name(hosts[0]) not in LOOPBACK:
        return 403, "Host: allowed only the address that the clinic printed"
    if len(origins) > 1 or any(origin != f"http://{hosts[0]}" for origin in origins):
        return 403, "Origin: another site may not use the clinic"
    if scope["method"] in ("GET", "HEAD"):
        return None
    if not origins:
        return 403, "Origin: missing; choices are taken from the clinic's own page"
    kind = headers.get("content-type", [""])[0].partition(";")[0].strip().lower()
    if kind != "application/json":
        return 415, "Content-Type: allowed application/json"
    length = headers.get("content-length", [""])[0]
    if not length.isdigit() or int(length) > MOST_BODY_BYTES:
        return 413, f"Content-Length: allowed up to {MOST_BODY_BYTES} bytes"
    return None


def _host_name(host: str) -> str:
    """Without the port; "" for what is no host."""
    try:
        parts = urlsplit(f"http://{host}")
        parts.port  # noqa: B018 (raises for one that is no number)
    except ValueError:
        return ""
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return ""
    return host.rpartition(":")[0] if parts.port is not None else host
