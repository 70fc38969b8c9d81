"""Pages: asked for (again only if they have changed), read, and remembered."""

from collections.abc import Mapping

from harness.images.magic_bytes import other_kind
from scrapers.crawl.client import PAGE, Client
from scrapers.crawl.page_text import read_page, text_and_wish
from scrapers.crawl.records import DONE, FAILED, GONE, REFUSED, FetchError, Page
from scrapers.crawl.response import Answer, TryAgain
from scrapers.crawl.store import CachedPage

MAX_PAGE_BYTES = 4 << 20  # as sent and as unpacked


async def ask_page(
    client: Client, url: str, cached: CachedPage | None, headers: Mapping[str, str], api: bool
) -> Answer:
    """The page from the network: 200, or 304 when it is still the one that is known."""
    asked = {**PAGE, **headers}
    known = cached if cached and cached.status == DONE else None
    if known and known.etag:
        asked["If-None-Match"] = known.etag
    if known and known.last_modified:
        asked["If-Modified-Since"] = known.last_modified

    def check(answer: Answer) -> None:
        if answer.status == 304 and known is None:
            raise TryAgain("http: 304 for a page that is not known", FAILED, 304)
        if answer.status == 200 and b"\0" in answer.body[:1024]:
            reason = f"not_a_page: found {other_kind(answer.body)}"
            raise FetchError(url, REFUSED, reason, 200)

    return await client.get(url, asked, check, api, MAX_PAGE_BYTES)


def page_of_answer(url: str, answer: Answer, cached: CachedPage | None, obey_optout: bool, now: float) -> CachedPage:
    """What to keep of an answer; the cached page with a new date when it has not changed. Not for the client's loop:
    its bytes are read here."""
    if answer.status == 304:
        assert cached
        cached.fetched_at = now
        return cached
    content_type = answer.headers.get("content-type", "")
    text, wish = read_page(url, text_and_wish, answer.body, content_type, obey_optout)
    if wish:
        raise FetchError(url, REFUSED, f"optout: {wish}", answer.status, answer.attempts)
    etag, modified = answer.headers.get("etag"), answer.headers.get("last-modified")
    return CachedPage(url, DONE, None, answer.status, str(answer.url), content_type, text, etag, modified, now)


def lost_page(error: FetchError, now: float) -> CachedPage | None:
    """What to remember of a page that its server will not give, so that it is not asked again soon; else None."""
    if error.status not in (GONE, REFUSED) or error.http is None or error.reason.startswith("optout"):
        return None
    return CachedPage(error.url, error.status, error.reason, error.http, error.url, "", "", None, None, now)


def page_of(cached: CachedPage) -> Page:
    if cached.status != DONE:
        raise FetchError(cached.url, cached.status, cached.reason or "", cached.http)
    return Page(cached.final_url, cached.text)
