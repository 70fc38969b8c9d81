"""Wishes that come with an answer: X-Robots-Tag, TDM-Reservation and a page's <meta name="robots">.

Pictures are fetched to train on, so a wish not to be indexed is taken as one not to be collected, too.
"""

from scrapers.crawl.politeness import AGENT

# noai, noimageai: DeviantArt's; noml: proposed to search engines; none = noindex, nofollow.
OPT_OUTS = {"noai", "noimageai", "noml", "noindex", "noimageindex", "none"}
# Directives with a value of their own behind a colon; any other name before a colon is a robot's.
WITH_VALUE = {"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"}
OUR_NAMES = {AGENT, "*", "robots"}


def header_opt_out(robots_tags: list[str], tdm_reservation: str | None = None) -> str | None:
    """The wish in an answer's X-Robots-Tag headers that is meant for us, or None."""
    for line in robots_tags:
        wish = _wish(line)
        if wish:
            return f"X-Robots-Tag: {wish}"
    if (tdm_reservation or "").strip() == "1":  # W3C TDM Reservation Protocol: text and data mining rights reserved
        return "TDM-Reservation: 1"
    return None


def page_opt_out(html: str) -> str | None:
    """The wish in a page's meta tags that is meant for us, or None."""
    from selectolax.lexbor import LexborHTMLParser

    for tag in LexborHTMLParser(html).css("meta[name][content]"):
        name, content = tag.attributes.get("name") or "", tag.attributes.get("content") or ""
        name = name.strip().lower()
        if name in OUR_NAMES and (wish := _wish(content)):
            return f'<meta name="{name}">: {wish}'
        if name == "tdm-reservation" and content.strip() == "1":
            return '<meta name="tdm-reservation">: 1'
    return None


def _wish(line: str) -> str | None:
    """The first opt-out of a line of directives. After `otherbot:` they are for that robot alone."""
    for_us = True
    for part in line.lower().split(","):
        name, colon, rest = (piece.strip() for piece in part.partition(":"))
        if colon and name not in WITH_VALUE:
            for_us = name in OUR_NAMES
            name = rest
        if for_us and name in OPT_OUTS:
            return name
    return None
