"""Pages: fetched (conditionally, when cached), decoded and cached."""

from collections.abc import Mapping

from harness.images.magic_bytes import other_kind
from scrapers.crawl.client import PAGE, Client
from scrapers.crawl.page_text import read_page, text_and_opt_out
from scrapers.crawl.records import DONE, FAILED, GONE, REFUSED, FetchError, Page
from scrapers.crawl.response import Response, TryAgain
from scrapers.crawl.store import CachedPage

MAX_PAGE_BYTES = 4 << 20  # as sent and as unpacked


async def fetch_page(
    client: Client, url: str, cached: CachedPage | None, headers: Mapping[str, str], api: bool
) -> Response:
    """The page from the network: 200, or 304 when the cached one is current."""
    request_headers = {**PAGE, **headers}
    known = cached if cached and cached.status == DONE else None
    if known and known.etag:
        request_headers["If-None-Match"] = known.etag
    if known and known.last_modified:
        request_headers["If-Modified-Since"] = known.last_modified

    def check(response: Response) -> None:
        if response.status == 304 and known is None:
            raise TryAgain("http: 304 for a page that is not cached", FAILED, 304)
        if response.status == 200 and b"\0" in response.body[:1024]:
            reason = f"not_a_page: found {other_kind(response.body)}"
            raise FetchError(url, REFUSED, reason, 200)

    return await client.get(url, request_headers, check, api, MAX_PAGE_BYTES)


def page_of_response(
    url: str, response: Response, cached: CachedPage | None, obey_optout: bool, now: float
) -> CachedPage:
    """The page to cache; the cached one with a new date if it has not changed. Slow: not for the client's loop."""
    if response.status == 304:
        assert cached
        cached.fetched_at = now
        return cached
    content_type = response.headers.get("content-type", "")
    text, opt_out = read_page(url, text_and_opt_out, response.body, content_type, obey_optout)
    if opt_out:
        raise FetchError(url, REFUSED, f"optout: {opt_out}", response.status, response.attempts)
    etag, modified = response.headers.get("etag"), response.headers.get("last-modified")
    return CachedPage(url, DONE, None, response.status, str(response.url), content_type, text, etag, modified, now)


def failed_page(error: FetchError, now: float) -> CachedPage | None:
    """A cache entry for a page that its server refuses, so that it is not requested again soon; else None."""
    if error.status not in (GONE, REFUSED) or error.http is None or error.reason.startswith("optout"):
        return None
    return CachedPage(error.url, error.status, error.reason, error.http, error.url, "", "", None, None, now)


def to_page(cached: CachedPage) -> Page:
    if cached.status != DONE:
        raise FetchError(cached.url, cached.status, cached.reason or "", cached.http)
    return Page(cached.final_url, cached.text)
