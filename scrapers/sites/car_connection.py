"""The Car Connection: makes → models → years → specifications and photos. The pictures are on a second host.

Pages and their last known structure:
    /new-cars                        a.add-zip            → /make/new,audi
    /make/new,audi                   div.name a           → /cars/audi_a5
    /cars/audi_a5                    a.btn                → /overview/audi_a5_2013
    /specifications/audi_a5_2013     #a_bc_1 (make) #a_bc_2 #a_bc_3, span.msrp, div.specs-set-item with two span
    /photos/audi_a5_2013             div.gallery[data-model], or a script: sml/<name>_<number>_s.jpg
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

from harness.errors import UserError
from harness.messages import log
from scrapers.crawl.page_text import read_page
from scrapers.crawl.records import FAILED, FetchError, HostStopped, Page, PictureItem
from scrapers.sites.car_specs import Specs, specs_from_rows
from scrapers.sites.source import PageChanged, Pages, PageShapeCheck, parse_html

T = TypeVar("T")
SITE, PICTURES = "https://www.thecarconnection.com", "https://images.hgmsites.net"
SIZE_LETTERS = {"sml": "s", "med": "m", "lrg": "l"}

# sml/2013-audi-a5-angular-front-exterior-view_100420485_s.jpg: name, number, kind; thumbnails end in .gif
_PICTURE = re.compile(r"[a-z]{3}/([A-Za-z0-9._%~-]*?)_(\d{6,})_[a-z]\.(jpe?g|webp|png|gif)", re.IGNORECASE)
_YEAR = re.compile(r"_((?:19|20)\d\d)(?=_|$)")


class CarConnection:
    """The crawl. `makes`: only these (case and punctuation are ignored); `years`: only these."""

    name = "car_connection"

    def __init__(
        self,
        *,
        picture_size: str = "lrg",
        makes: tuple[str, ...] = (),
        years: frozenset[int] | None = None,
        years_per_model: int = 8,
        pictures_per_car: int = 150,
        leave_out: tuple[str, ...] = (),
        site: str | None = None,
        pictures: str | None = None,
    ) -> None:
        self.picture_size, self.makes, self.years = picture_size, makes, years
        self.years_per_model, self.pictures_per_car, self.leave_out = years_per_model, pictures_per_car, leave_out
        self.site, self.pictures = site or SITE, pictures or PICTURES
        self.left_out = 0
        self.unread: list[str] = []  # pages that failed; the same command retries them
        self.shape_check = PageShapeCheck()

    def find(self, pages: Pages) -> Iterator[PictureItem]:
        for make, make_url in self._chosen_makes(pages):
            for model_url in self._links(pages, make_url, "make", "div.name a", "/cars/"):
                for car_url in self._car_urls(pages, model_url):
                    yield from self._pictures_of(pages, car_url, make)
        self.shape_check.close()
        if self.left_out:
            pictures = f"{self.left_out} picture{'s' * (self.left_out > 1)}"
            log(f"car_connection: {pictures} left out by name (leave_out in configs/sources.yaml)")

    def check(self, item: PictureItem) -> None:
        self.shape_check.close()  # an odd specifications page does not stop a crawl, but fails a check

    def _chosen_makes(self, pages: Pages) -> list[tuple[str, str]]:
        """(name, URL) of the requested makes. Errors of this page end the crawl."""
        url = f"{self.site}/new-cars"
        page = pages.get_page(url)
        links = read_page(url, links_on, page, "a.add-zip", "/make/")
        found = {text or link.rpartition(",")[2]: link for text, link in links}
        if not found:
            raise PageChanged(url, "a.add-zip with links to /make/ (the makes)")
        unknown = [make for make in self.makes if _plain(make) not in map(_plain, found)]
        if unknown:
            raise UserError(f"MAKES: found {', '.join(unknown)}, allowed {', '.join(found)}")
        wanted = set(map(_plain, self.makes or found))
        return [(make, link) for make, link in found.items() if _plain(make) in wanted]

    def _car_urls(self, pages: Pages, model_url: str) -> list[str]:
        """The overview pages of a model's years, newest first."""
        links = self._links(pages, model_url, "model", "a.btn", "/overview/")
        dated = {link: int(year[1]) for link in links if (year := _YEAR.search(urlsplit(link).path))}
        newest = sorted(dated, key=lambda link: -dated[link])
        return [link for link in newest if self.years is None or dated[link] in self.years][: self.years_per_model]

    def _links(self, pages: Pages, url: str, kind: str, selector: str, path: str) -> list[str]:
        links = self._read(pages, url, links_on, selector, path)
        if links is None:
            return []
        self.shape_check.add(kind, url, bool(links), f"{selector} with links to {path}")
        return list(dict.fromkeys(link for _, link in links))

    def _pictures_of(self, pages: Pages, car_url: str, make: str) -> Iterator[PictureItem]:
        photos_url = car_url.replace("/overview/", "/photos/")
        found = self._read(pages, photos_url, pictures_on)
        if found is None:
            return
        self.shape_check.add("photos", photos_url, bool(found), "pictures (sml/<name>_<number>_s.jpg)")
        kept = [picture for picture in found if not self._is_left_out(picture[0])][: self.pictures_per_car]
        self.left_out += sum(self._is_left_out(name) for name, _, _ in found)
        if not kept:
            return
        specs = self._specs(pages, car_url.replace("/overview/", "/specifications/"), make)
        letter = SIZE_LETTERS[self.picture_size]
        for name, number, suffix in kept:
            url = f"{self.pictures}/{self.picture_size}/{name}_{number}_{letter}.{suffix}"
            title = name.replace("-", " ").strip() or None
            yield PictureItem(url, self.name, page=photos_url, class_name=specs["make"], specs=specs, title=title)

    def _specs(self, pages: Pages, url: str, make: str) -> Specs:
        """The page's specs; make and year at least are known from its URL."""
        found = self._read(pages, url, rows_on)
        rows = found or {}
        if found is not None:
            self.shape_check.add(
                "specifications", url, "Make" in rows and len(rows) > 4, "#a_bc_1 and div.specs-set-item"
            )
        year = _YEAR.search(urlsplit(url).path)
        return specs_from_rows({"Make": make, "Year": year[1] if year else "", **rows})

    def _is_left_out(self, name: str) -> bool:
        return any(f"-{word}-" in f"-{name}-" for word in self.leave_out)

    def _read(self, pages: Pages, url: str, function: Callable[..., T], *arguments: str) -> T | None:
        """function(page, *arguments). A page that cannot be fetched is logged: None, and the crawl continues."""
        try:
            return read_page(url, function, pages.get_page(url), *arguments)
        except HostStopped:
            raise
        except FetchError as error:
            log(f"{url}: {error.reason}")
            if error.status == FAILED:
                self.unread.append(url)
            return None


def pictures_on(page: Page) -> list[tuple[str, str, str]]:
    """(name, number, suffix) of every picture on a photos page, in its order, without repeats."""
    galleries = [node.attributes.get("data-model") or "" for node in parse_html(page.text).css("[data-model]")]
    for text in ("\n".join(galleries), page.text):
        found: dict[str, tuple[str, str, str]] = {}
        for name, number, suffix in _PICTURE.findall(text.replace("\\/", "/")):
            found.setdefault(number, (name, number, "jpg" if suffix.lower() == "gif" else suffix))
        if found:
            return list(found.values())
    return []


def rows_on(page: Page) -> dict[str, str]:
    """Label → text of a specifications page, with Make, Model, Year and MSRP."""
    tree = parse_html(page.text)
    rows: dict[str, str] = {}
    for item in tree.css("div.specs-set-item"):
        cells = [" ".join(cell.text().split()) for cell in item.css("span")]
        if len(cells) >= 2:
            rows.setdefault(cells[0].rstrip(":"), cells[1])
    heads = {"Make": "#a_bc_1", "Model": "#a_bc_2", "Year": "#a_bc_3", "MSRP": "span.msrp, #style-price a"}
    for label, selector in heads.items():
        node = tree.css_first(selector)
        if node is not None and node.text().strip():
            rows[label] = " ".join(node.text().split())
    return rows


def links_on(page: Page, selector: str, path: str) -> list[tuple[str, str]]:
    """(text, URL) of the links to this path on the page's own host."""
    found = []
    for node in parse_html(page.text).css(selector):
        link = urljoin(page.url, (node.attributes.get("href") or "").strip())
        if urlsplit(link).path.startswith(path) and urlsplit(link).netloc == urlsplit(page.url).netloc:
            found.append((" ".join(node.text().split()), link.partition("#")[0]))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
