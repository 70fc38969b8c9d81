"""Checks of a response: bounded body, status, picture format, redirect target, Retry-After."""

from contextlib import aclosing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx2

from harness.images.magic_bytes import PICTURE_TYPES, is_complete, other_kind, picture_kind
from scrapers.crawl.hosts import Clock
from scrapers.crawl.records import FAILED, GONE, REFUSED, FetchError
from scrapers.crawl.ssrf_guard import check_url

REDIRECTS = (301, 302, 303, 307, 308)
TRY_AGAIN = (408, 425, 429)  # and all 5xx
ENCODINGS = ("", "identity", "gzip", "deflate")  # what the standard library decompresses
# Bodies that servers send with status 200 in place of the picture: a log-in page, a JSON error, nothing.
PLACEHOLDERS = ("html", "unknown", "empty")


class Stopping(Exception):
    """The crawl is being stopped."""


class TryAgain(Exception):
    """A failure to retry. `status`: the URL's, if every attempt fails so; `host_failure`: counts against the host."""

    def __init__(self, reason: str, status: str = FAILED, http: int | None = None, host_failure: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.status, self.http, self.host_failure = reason, status, http, host_failure


@dataclass(frozen=True)
class Response:
    """A whole response. `url`: after redirects."""

    url: httpx2.URL
    status: int
    headers: httpx2.Headers
    body: bytes
    attempts: int = 1


async def read_body(url: str, response: httpx2.Response, cap: int, cut: bool) -> bytes:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ENCODINGS:
        raise TryAgain(f"encoding: found {encoding[:40]}, allowed gzip and deflate", REFUSED, host_failure=False)
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length[:18]) > cap and not cut:
        raise FetchError(url, REFUSED, f"too_large: {length[:18]} bytes, allowed {cap}", 200)
    body = bytearray()
    async with aclosing(response.aiter_bytes()) as chunks:  # decompressed in chunks of at most 1 MiB
        async for chunk in chunks:
            body += chunk
            if len(body) > cap or response.num_bytes_downloaded > cap:
                if cut:
                    break
                raise TryAgain(f"too_large: more than {cap} bytes", REFUSED, 200, host_failure=False)
    return bytes(body)


def check_status(url: str, response: Response) -> None:
    """TryAgain or FetchError for any status but 200 and 304."""
    status = response.status
    if status in (200, 304):
        return
    reason = f"http: {status}"
    if status in (404, 410):
        raise FetchError(url, GONE, reason, status)
    if status in TRY_AGAIN or status >= 500 or status < 300:
        raise TryAgain(reason, http=status)
    raise FetchError(url, REFUSED, reason, status)


def check_picture(response: Response) -> None:
    """TryAgain for a placeholder or half a picture; FetchError (refused) for a format that is not collected."""
    kind = picture_kind(response.body)
    if kind is None:
        other = other_kind(response.body)
        if other in PLACEHOLDERS:
            raise TryAgain(f"not_a_picture: {other}", FAILED, response.status, host_failure=False)
        reason = f"format: found {other}, allowed {', '.join(PICTURE_TYPES)}"
        raise FetchError(str(response.url), REFUSED, reason, response.status)
    # A body without a length ends with its connection: only the picture's own end shows that it is complete.
    unbounded = "content-length" not in response.headers and "transfer-encoding" not in response.headers
    if unbounded and not is_complete(response.body, kind):
        raise TryAgain("short: the picture has no end", FAILED, response.status)


def next_hop(url: str, response: Response, allow_private: bool) -> httpx2.URL:
    location = response.headers.get("location", "")
    try:
        joined = str(response.url.join(location))
    except (httpx2.InvalidURL, ValueError) as error:
        raise FetchError(url, REFUSED, f"redirects: to an invalid URL ({error})", response.status) from error
    if not location:
        raise FetchError(url, REFUSED, "redirects: to nowhere", response.status)
    try:
        return check_url(joined, allow_private)
    except FetchError as error:
        raise FetchError(url, REFUSED, f"{error.reason} (after a redirect)", response.status) from error


def origin_of(target: httpx2.URL) -> str:
    """Scheme, host and port: the scope of a robots.txt."""
    return f"{target.scheme}://{target.netloc.decode('ascii')}"


def retry_after_sec(headers: httpx2.Headers, clock: Clock) -> float | None:
    """Retry-After (RFC 9110 §10.2.3: seconds or a date) in seconds from now; None without a valid one."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        until = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    try:  # by the server's own clock, if it sends a date
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        now = clock.today()
    return max(0.0, until - now)
