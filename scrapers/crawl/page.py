"""Pages: asked for (again only if they have changed), decoded, and their wishes heard."""

import codecs
import re
from collections.abc import Mapping

from harness.images.magic_bytes import other_kind
from scrapers.crawl.client import PAGE, Client
from scrapers.crawl.optout import page_opt_out
from scrapers.crawl.records import DONE, FAILED, GONE, REFUSED, FetchError, Page
from scrapers.crawl.response import Answer, TryAgain
from scrapers.crawl.store import CachedPage

META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([a-z0-9_-]{2,40})""", re.IGNORECASE)


async def ask_page(
    client: Client, url: str, cached: CachedPage | None, headers: Mapping[str, str], api: bool
) -> CachedPage:
    """The page from the network; the cached one with a new date when it has not changed."""
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

    answer = await client.get(url, asked, check, api)
    now = client.clock.today()
    if answer.status == 304:
        assert known
        known.fetched_at = now
        return known
    content_type = answer.headers.get("content-type", "")
    text = decode(answer.body, content_type)
    if client.manners.obey_optout and not api and "json" not in content_type and (wish := page_opt_out(text)):
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


def decode(body: bytes, content_type: str) -> str:
    """Text by the charset of the header, else of the page itself, else UTF-8; what does not fit is replaced."""
    if body.startswith(codecs.BOM_UTF8):
        return body.decode("utf-8-sig", "replace")
    named = re.search(r"charset\s*=\s*[\"']?([\w-]+)", content_type)
    in_page = META_CHARSET.search(body[:2048])
    for name in (named and named[1], in_page and in_page[1].decode("ascii")):
        try:
            return body.decode(name, "replace") if name else body.decode("utf-8")
        except (LookupError, ValueError):
            continue
    return body.decode("utf-8", "replace")
