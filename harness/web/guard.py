"""Access checks of a local page, as ASGI middleware.

Any web site can make a visitor's browser send requests here. So the guard accepts only known Host names (against DNS
rebinding), refuses embedding by other sites, and accepts changes only from our own page (Origin) with a content type
that a foreign form cannot send. It limits bodies and adds headers that allow no foreign content.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MAX_BODY_BYTES = 16_384
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


@dataclass(frozen=True)
class Body:
    """The Content-Type and size limit of a path's request body."""

    kind: str = "application/json"
    max_bytes: int = MAX_BODY_BYTES


@dataclass(frozen=True)
class AccessRules:
    """Which requests a page accepts.

    Attributes:
        page: its name in error messages.
        names: allowed Host names besides loopback.
        addresses: also allow any IP address as Host, which DNS rebinding cannot forge.
        bodies: path → request body, where that is not JSON.
    """

    page: str
    names: tuple[str, ...] = ()
    addresses: bool = False
    bodies: Mapping[str, Body] = field(default_factory=dict)


class TooLarge(Exception):
    """A body exceeded its limit while it was received."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, receive, send)
        # Web sockets get no response, so the server closes them.

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name.lower() for name, _ in message["headers"]}
                added = {**HEADERS, "Cache-Control": "no-store"}
                pairs = ((name.encode(), value.encode()) for name, value in added.items())
                message["headers"] = [*message["headers"], *(pair for pair in pairs if pair[0].lower() not in present)]
            await send(message)

        refusal = _refusal(scope, self.rules)
        if refusal is None:
            limit = self.rules.bodies.get(scope["path"], Body()).max_bytes
            try:
                await self.app(scope, _counted(receive, limit), send_with_headers)
                return
            except TooLarge as error:
                if started:
                    raise
                refusal = 413, str(error)
        status, text = refusal
        await JSONResponse({"error": text}, status, {"Connection": "close"})(scope, receive, send_with_headers)


def _counted(receive: Receive, limit: int) -> Receive:
    """`receive` that raises TooLarge once the body exceeds the limit, whatever its Content-Length."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise TooLarge(f"body: found more than {_size(limit)}, allowed up to that")
        return message

    return counted


def _refusal(scope: Scope, rules: AccessRules) -> tuple[int, str] | None:
    """(status, reason) if the request is refused, else None."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    hosts, origins = headers.get("host", []), headers.get("origin", [])
    if len(hosts) != 1 or not _is_known(_host_name(hosts[0]), rules):
        return 403, f"Host: allowed only the address that the {rules.page} printed"
    if len(origins) > 1 or any(origin != f"http://{hosts[0]}" for origin in origins):
        return 403, f"Origin: another site may not use the {rules.page}"
    if headers.get("sec-fetch-site", ["none"])[0] not in ("none", "same-origin"):
        if headers.get("sec-fetch-mode", [""])[0] != "navigate":  # following a link is fine
            return 403, f"Sec-Fetch-Site: another site may not embed the {rules.page}"
    if scope["method"] in ("GET", "HEAD"):
        return None
    if not origins:
        return 403, f"Origin: missing; changes are accepted only from the {rules.page}'s own page"
    return _body_refusal(headers, rules.bodies.get(scope["path"], Body()))


def _body_refusal(headers: dict[str, list[str]], allowed: Body) -> tuple[int, str] | None:
    kind = headers.get("content-type", [""])[0].partition(";")[0].strip().lower()
    if kind != allowed.kind:
        return 415, f"Content-Type: allowed {allowed.kind}"
    length = headers.get("content-length", [""])[0]
    if not length.isdigit() or int(length) > allowed.max_bytes:
        return 413, f"Content-Length: allowed up to {_size(allowed.max_bytes)}"
    return None


def _size(count: int) -> str:
    return f"{count // 2**20} MiB" if count >= 2**20 else f"{count} bytes"


def _is_known(name: str, rules: AccessRules) -> bool:
    if name in LOOPBACK or name.lower() in rules.names:
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return rules.addresses


def _host_name(host: str) -> str:
    """Without the port; "" for an invalid host."""
    try:
        parts = urlsplit(f"http://{host}")
        parts.port  # noqa: B018 (raises on an invalid port)
    except ValueError:
        return ""
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return ""
    return host.rpartition(":")[0] if parts.port is not None else host
