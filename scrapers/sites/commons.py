"""Pictures of Wikimedia Commons categories through its API, with licence, author and title.

https://www.mediawiki.org/wiki/API:Categorymembers, .../API:Imageinfo, .../API:Etiquette: serial requests of 50 files
(generator + imageinfo), with `maxlag`, so that we wait when the servers lag. robots.txt closes /w/ to crawlers; the API
there has its own rules (https://wikitech.wikimedia.org/wiki/Robot_policy). The pictures are fetched under robots.txt.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from harness.errors import UserError
from harness.messages import log
from scrapers.crawl.records import PictureItem
from scrapers.sites.source import PageChanged, Pages, html_to_text, read_json

API = "https://commons.wikimedia.org/w/api.php"
PICTURE_TYPES = ("image/jpeg", "image/png", "image/webp")
BATCH = 50
MAXLAG_SEC, MAX_PAUSE_SEC, LAG_TRIES = 5, 60, 6
RETRY_CODES = ("maxlag", "ratelimited", "readonly")
FILES, CATEGORIES = 6, 14  # namespaces


class Commons:
    """`depth`: levels of sub-categories; `width_px`: of the pictures, None = the originals."""

    name = "commons"

    def __init__(
        self,
        categories: Sequence[str],
        depth: int = 3,
        width_px: int | None = 960,
        api: str | None = None,
    ) -> None:
        self.categories = [category.removeprefix("Category:").replace("_", " ").strip() for category in categories]
        self.depth, self.width_px, self.api = depth, width_px, api or API
        self.other_types = 0

    def find(self, pages: Pages) -> Iterator[PictureItem]:
        seen_categories, seen_files = set(self.categories), set[str]()
        waiting = deque((category, 0) for category in dict.fromkeys(self.categories))
        while waiting:
            category, level = waiting.popleft()
            members = 0
            for member in self._members(pages, category, with_subcategories=level < self.depth):
                members += 1
                title = str(member.get("title"))
                if member.get("ns") == CATEGORIES:
                    below = title.partition(":")[2]
                    if level < self.depth and below not in seen_categories:
                        seen_categories.add(below)
                        waiting.append((below, level + 1))
                elif title not in seen_files and (item := self._to_item(member, title)):
                    seen_files.add(title)
                    yield item
            if not members and level == 0:
                log(f"commons: Category:{category} is empty or missing")
        if self.other_types:
            log(f"commons: {self.other_types} files are not jpeg, png or webp and were skipped")
        if not seen_files:
            named = ", ".join(self.categories)
            raise UserError(f"categories: found no picture in {named}, allowed categories of Wikimedia Commons")

    def check(self, item: PictureItem) -> None:
        found = {"descriptionurl": item.page, "LicenseShortName": item.license, "Artist": item.author}
        if lacking := [key for key, value in found.items() if not value]:
            raise PageChanged(self.api, f"{', '.join(lacking)} of {item.title}")

    def _members(self, pages: Pages, category: str, with_subcategories: bool) -> Iterator[dict[str, Any]]:
        """Files (with their imageinfo) and sub-categories, following continuations.

        A batch may come in several responses: files without imageinfo then come again in the next.
        """
        query = {
            "action": "query",
            "format": "json",
            "formatversion": "2",
            "maxlag": str(MAXLAG_SEC),
            "generator": "categorymembers",
            "gcmtitle": f"Category:{category}",
            "gcmtype": "file|subcat" if with_subcategories else "file",
            "gcmlimit": str(BATCH),
            "prop": "imageinfo",
            "iiprop": "url|mime|size|extmetadata",
            "iiextmetadatafilter": "LicenseShortName|LicenseUrl|Artist",
            "iiextmetadatalanguage": "en",
        }
        if self.width_px:
            query["iiurlwidth"] = str(self.width_px)
        more: dict[str, str] | None = {}
        while more is not None:
            response = self._query(pages, {**query, **more})
            for member in response.get("query", {}).get("pages", []):
                if member.get("ns") == CATEGORIES or member.get("imageinfo"):
                    yield member
            following = response.get("continue")
            if following is not None and following == more:
                raise PageChanged(self.api, "a new continuation")
            more = following

    def _query(self, pages: Pages, query: dict[str, str]) -> dict[str, Any]:
        url = f"{self.api}?{urlencode(sorted(query.items()))}"
        for attempt in range(1, LAG_TRIES + 1):
            page = pages.get_page(url, fresh_days=7 if attempt == 1 else 0, api=True)
            response = read_json(page, "the API's JSON")
            error = response.get("error")
            if error is None:
                _check_shape(url, response)
                if not response.get("batchcomplete") and "query" not in response and "continue" not in response:
                    raise PageChanged(url, "query, continue or batchcomplete")
                return response
            if not isinstance(error, dict):
                raise PageChanged(url, "an error with code and info")
            if error.get("code") not in RETRY_CODES:
                raise UserError(f"commons: the API returned {error.get('code')}: {error.get('info')}")
            if attempt < LAG_TRIES:
                pages.pause(_lag_sec(error) * attempt)
        raise UserError(f"commons: the servers lag ({error.get('code')}); what is fetched is kept, try later")

    def _to_item(self, member: dict[str, Any], title: str) -> PictureItem | None:
        info = member["imageinfo"][0]
        if info.get("mime") not in PICTURE_TYPES:
            self.other_types += 1
            return None
        url = info.get("thumburl") if self.width_px and info.get("width", 0) > self.width_px else info.get("url")
        if not url:
            raise PageChanged(self.api, f"a URL for {title}")
        about = info.get("extmetadata") or {}
        license_name, license_url = (_value(about, key) for key in ("LicenseShortName", "LicenseUrl"))
        license_text = f"{license_name} <{license_url}>" if license_name and license_url else license_name
        return PictureItem(
            without_query(url),
            self.name,
            page=info.get("descriptionurl"),
            license=license_text,
            author=html_to_text(_value(about, "Artist") or ""),
            title=title.removeprefix("File:").rpartition(".")[0] or title,
        )


def _check_shape(url: str, response: dict[str, Any]) -> None:
    """PageChanged when a field that is read has an unexpected type."""
    query, following = response.get("query", {}), response.get("continue", {})
    members = query.get("pages", []) if isinstance(query, dict) else None
    if not isinstance(members, list) or not isinstance(following, dict):
        raise PageChanged(url, "query.pages (a list) and continue (an object)")
    for member in members:
        infos = member.get("imageinfo", []) if isinstance(member, dict) else None
        if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
            raise PageChanged(url, "pages with imageinfo (a list of objects)")
        for info in infos:
            if not isinstance(info.get("url", ""), str) or not isinstance(info.get("width", 0), int):
                raise PageChanged(url, "imageinfo with url (text) and width (a number)")


def _lag_sec(error: dict[str, Any]) -> float:
    lag = error.get("lag")
    return float(min(max(MAXLAG_SEC, lag), MAX_PAUSE_SEC)) if isinstance(lag, int | float) else MAXLAG_SEC


def without_query(url: str) -> str:
    """Drops tracking parameters (`?utm_source=...`), so that a picture has one URL."""
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))


def _value(about: Any, key: str) -> str | None:
    found = about.get(key) if isinstance(about, dict) else None  # an empty extmetadata is a list
    value = found.get("value") if isinstance(found, dict) else None
    return str(value).strip() or None if value is not None else None
