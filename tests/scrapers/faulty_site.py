"""A web site on this machine that behaves as badly as web sites do, and writes down everything it was asked."""

import asyncio
import gzip
import hashlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpcore2
from httpcore2 import AnyIOBackend  # pyright: ignore
from PIL import Image

from harness.images.magic_bytes import PICTURE_TYPES
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.hosts import Clock
from scrapers.crawl.politeness import Politeness
from scrapers.crawl.records import FetchCounts, PictureItem
from scrapers.crawl.ssrf_guard import GuardedNetwork
from tests.harness.pictures import encoded

FAULTS = ("500", "429", "reset", "short", "unbounded_short", "html", "slow", "loop", "bomb", "endless", "empty")
SHORT_CAP_BYTES = 64 * 1024  # max_bytes of the tests' politeness: bombs and endless bodies go off early
SILENCE_SEC = 1.0  # of the tests' politeness; more than a busy machine makes a good answer wait
CONTACT = "tests@carforge.example"
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def make_picture(number: int, kind: str = "jpg") -> bytes:
    """A small picture like no other."""
    noise = hashlib.shake_128(f"{kind}{number}".encode()).digest(16 * 16 * 3)
    return encoded(Image.frombytes("RGB", (16, 16), noise), FORMATS[kind])


@dataclass
class Reply:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "text/html"


@dataclass
class SiteRequest:
    """One request as the site saw it. `whole`: a picture was sent to its last byte; `fault`: what was done instead."""

    path: str
    host: str
    headers: dict[str, str]
    at: float
    fault: str | None = None
    whole: bool = False
    status: int = 0


class Site:
    """`with Site() as site:`; `pages` maps a path (or "host/path") to a Reply or to a function of the request."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.pages: dict[str, Reply | Callable[[SiteRequest], Reply]] = {"/robots.txt": Reply(status=404)}
        self.fault_share = 0.0
        self.faults: Sequence[str] = FAULTS
        self.requests: list[SiteRequest] = []
        self.after_reply: Callable[[SiteRequest], None] = lambda request: None
        self.lock, self.clock = threading.Lock(), clock or Clock()
        self.open = True

    def __enter__(self) -> "Site":
        handler = type("Bound", (_Handler,), {"site": self})
        self.server = _Server(("127.0.0.1", 0), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False
        self.server.shutdown()
        self.server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def add_pictures(self, count: int, folder: str = "/pictures") -> dict[str, bytes]:
        """So many pictures of three kinds; → path → bytes."""
        made = {}
        for number in range(count):
            kind = ("jpg", "png", "webp")[number % 3]
            path = f"{folder}/{number}.{kind}"
            made[path] = make_picture(number, kind)
            self.pages[path] = Reply(made[path], content_type=PICTURE_TYPES[kind])
        return made

    def note(self, request: SiteRequest) -> int:
        """→ how often this path was asked for before."""
        with self.lock:
            before = sum(1 for other in self.requests if other.path == request.path and other.host == request.host)
            self.requests.append(request)
            return before

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def wholes(self) -> Counter[str]:
        return Counter(request.path for request in self.requests if request.whole)

    def fault_for(self, path: str, before: int) -> str | None:
        """The same for the same request of the same path, whatever the order."""
        if path == "/robots.txt" or path not in self.pages:
            return None
        dice = int.from_bytes(hashlib.sha256(f"{path} {before}".encode()).digest()[:8]) / 2**64
        return self.faults[int(dice / self.fault_share * len(self.faults))] if dice < self.fault_share else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed, or has had enough."""


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        path = self.path.partition("?")[0] if self.path not in site.pages else self.path
        request = SiteRequest(self.path, self.headers.get("Host", ""), dict(self.headers.items()), site.clock.now())
        before = site.note(request)
        try:
            request.fault = site.fault_for(path, before)
            if request.fault:
                getattr(self, f"do_{request.fault}", self.do_status)(request)
            else:
                page = site.pages.get(request.host + path, site.pages.get(path, Reply(status=404)))
                self.reply(request, page(request) if callable(page) else page)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        site.after_reply(request)

    def reply(self, request: SiteRequest, reply: Reply) -> None:
        request.status = reply.status
        length = {} if "Transfer-Encoding" in reply.headers else {"Content-Length": str(len(reply.body))}
        self.send(reply.status, {"Content-Type": reply.content_type, **length, **reply.headers}, reply.body)
        request.whole = reply.status == 200 and reply.content_type.startswith("image/")

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            for part in value.split("\n"):
                self.send_header(name, part)
        self.end_headers()
        self.wfile.write(body)

    def send_part(self, body: bytes, length: int | None = None) -> None:
        """The beginning of a picture whose length is told, or is to be seen from the end of the connection."""
        length_header = {"Connection": "close"} if length is None else {"Content-Length": str(length)}
        self.send(200, {"Content-Type": "image/jpeg", **length_header}, body)
        self.close_connection = True

    def picture(self) -> bytes:
        page = self.site.pages[self.path]
        assert isinstance(page, Reply)
        return page.body

    def do_status(self, request: SiteRequest) -> None:
        headers = {"Retry-After": "0"} if request.fault == "429" else {}
        self.reply(request, Reply(b"no", int(request.fault or 0), headers))

    def do_reset(self, request: SiteRequest) -> None:
        linger = struct.pack("ii", 1, 0)  # close sends RST
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True

    def do_short(self, request: SiteRequest) -> None:
        length = len(self.picture())
        self.send_part(self.picture()[: length // 2], length)

    def do_unbounded_short(self, request: SiteRequest) -> None:
        self.send_part(self.picture()[:-20])

    def do_html(self, request: SiteRequest) -> None:
        self.reply(request, Reply(b"<!doctype html><p>Please log in", content_type="text/html"))

    def do_empty(self, request: SiteRequest) -> None:
        self.reply(request, Reply(b"", content_type="text/plain"))

    def do_slow(self, request: SiteRequest) -> None:
        self.send_part(self.picture()[:10], len(self.picture()))
        time.sleep(1.5 * SILENCE_SEC)

    def do_drip(self, request: SiteRequest) -> None:
        """A byte now and then: never silent, never done."""
        self.send_part(b"", 1000)
        while self.site.open:
            self.wfile.write(b"x")
            time.sleep(0.05)

    def do_loop(self, request: SiteRequest) -> None:
        self.reply(request, Reply(b"", 302, {"Location": self.path}))

    def do_bomb(self, request: SiteRequest) -> None:
        body = gzip.compress(bytes(8 << 20))
        self.reply(request, Reply(body, headers={"Content-Encoding": "gzip"}, content_type="text/plain"))

    def do_endless(self, request: SiteRequest) -> None:
        self.send_part(b"")
        while self.site.open:
            self.wfile.write(b"\xff\xd8\xff" + bytes(1 << 14))


class SiteNetwork(GuardedNetwork):
    """The guard as it is, with names that a test makes up; public addresses all lead to the site."""

    def __init__(self, site: Site, names: dict[str, Sequence[str]]) -> None:
        super().__init__(False, self.resolve_here, self.connect_here)
        self.site, self.names = site, {name: list(answers) for name, answers in names.items()}
        self.connected: list[str] = []  # the addresses that were really connected to
        self.lookups: Counter[str] = Counter()

    async def resolve_here(self, host: str, port: int) -> list[str]:
        """The name's addresses; "a then b": a at the first look-up, b ever after."""
        self.lookups[host] += 1
        found = []
        for response in self.names.get(host, []):
            first, then, second = response.partition(" then ")
            found.append(second if then and self.lookups[host] > 1 else first)
        return found

    async def connect_here(self, address: str, port: int, timeout: float | None, *_: Any) -> Any:
        self.connected.append(address)
        if address == "151.101.9.9":  # a test's dead address
            raise httpcore2.ConnectError("refused")
        return await AnyIOBackend().connect_tcp("127.0.0.1", self.site.port, timeout)


class FakeClock(Clock):
    """Sleeping costs no time; whoever sleeps moves it on."""

    def __init__(self) -> None:
        self.seconds, self.slept = 1000.0, []

    def now(self) -> float:
        return self.seconds

    def today(self) -> float:
        return 1_790_000_000.0 + self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


def quick_politeness(**changes: Any) -> Politeness:
    """Politeness that needs no patience."""
    values: dict[str, Any] = {
        **{"contact": CONTACT, "per_host_rate": 1000, "per_host_concurrency": 8},
        **{"silence_timeout_sec": SILENCE_SEC, "request_timeout_sec": 10, "backoff_sec": 0},
        **{"max_bytes": SHORT_CAP_BYTES, "allow_private": True},
    }
    return Politeness(**(values | changes))


def fetch(folder: Path, urls: Iterable[str], clock: Clock | None = None, **changes: Any) -> tuple[FetchCounts, Fetcher]:
    """What became of these pictures, and who fetched them, with `changes` of the quick politeness."""
    with Fetcher(folder, quick_politeness(**changes), clock=clock) as fetcher:
        return fetcher.fetch_pictures([PictureItem(url, "list") for url in urls]), fetcher
