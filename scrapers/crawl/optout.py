"""Opt-outs in a response: X-Robots-Tag, TDM-Reservation and a page's <meta name="robots">.

Pictures are fetched for training, so an opt-out of indexing also counts as one of collecting.
"""

from scrapers.crawl.politeness import AGENT

# noai, noimageai: DeviantArt's; noml: proposed to search engines; none = noindex, nofollow.
OPT_OUTS = {"noai", "noimageai", "noml", "noindex", "noimageindex", "none"}
# Directives with a value after a colon; any other name before a colon is a user agent.
WITH_VALUE = {"max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"}
OUR_NAMES = {AGENT, "*", "robots"}


def header_opt_out(robots_tags: list[str], tdm_reservation: str | None = None) -> str | None:
    """The opt-out in a response's headers that applies to us, or None."""
    for line in robots_tags:
        if opt_out := _find_opt_out(line):
            return f"X-Robots-Tag: {opt_out}"
    if (tdm_reservation or "").strip() == "1":  # W3C TDM Reservation Protocol
        return "TDM-Reservation: 1"
    return None


def page_opt_out(html: str) -> str | None:
    """The opt-out in a page's meta tags that applies to us, or None."""
    from selectolax.lexbor import LexborHTMLParser

    for tag in LexborHTMLParser(html).css("meta[name][content]"):
        name, content = tag.attributes.get("name") or "", tag.attributes.get("content") or ""
        name = name.strip().lower()
        if name in OUR_NAMES and (opt_out := _find_opt_out(content)):
            return f'<meta name="{name}">: {opt_out}'
        if name == "tdm-reservation" and content.strip() == "1":
            return '<meta name="tdm-reservation">: 1'
    return None


def _find_opt_out(line: str) -> str | None:
    """The first opt-out in a line of directives. Those after `otherbot:` apply to that agent only."""
    for_us = True
    for part in line.lower().split(","):
        name, colon, rest = (piece.strip() for piece in part.partition(":"))
        if colon and name not in WITH_VALUE:
            for_us = name in OUR_NAMES
            name = rest
        if for_us and name in OPT_OUTS:
            return name
    return None
