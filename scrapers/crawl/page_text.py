"""A page's bytes as text, and its opt-outs; parsed in a separate process, as the bytes are untrusted."""

import codecs
import re
from collections.abc import Callable
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import TypeVar

from harness.runtime.bounded_call import BoundedCalls, TooCostly
from scrapers.crawl.optout import page_opt_out
from scrapers.crawl.records import REFUSED, FetchError

T = TypeVar("T")
READING = BoundedCalls(cpu_sec=1.0, memory_bytes=512 << 20)  # shared: starting its process takes half a second

META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([a-z0-9_-]{2,40})""", re.IGNORECASE)
# The encodings of the web (WHATWG Encoding), by Python's names. No others: punycode takes minutes for a small page.
CHARSETS = {
    *("ascii", "utf_8", "utf_16", "utf_16_le", "utf_16_be", "latin_1", "koi8_r", "koi8_u"),
    *(f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)),
    *(f"cp125{number}" for number in range(9)),
    *("cp866", "cp874", "tis_620", "mac_roman", "mac_cyrillic"),
    *("gb2312", "gbk", "gb18030", "big5", "big5hkscs", "cp950"),
    *("shift_jis", "cp932", "euc_jp", "iso2022_jp", "euc_kr", "cp949"),
}


def read_page(url: str, function: Callable[..., T], *arguments: object) -> T:
    """function(*arguments), which parses the page at `url`; FetchError (refused) above the time or memory limit."""
    try:
        return READING.call(function, *arguments)
    except TooCostly as error:
        raise FetchError(url, REFUSED, f"page: reading it {error}", 200) from error


def text_and_opt_out(body: bytes, content_type: str, obey_optout: bool) -> tuple[str, str | None]:
    """The page's text, and the opt-out in it that applies to us, or None."""
    text = decode(body, content_type)
    return text, page_opt_out(text) if obey_optout and "json" not in content_type else None


def decode(body: bytes, content_type: str) -> str:
    """Text by the charset of the header, else UTF-8, else the page's own charset; undecodable bytes are replaced."""
    if body.startswith(codecs.BOM_UTF8):
        return body.decode("utf-8-sig", "replace")
    named = re.search(r"charset\s*=\s*[\"']?([\w-]+)", content_type)
    if named and (charset := to_charset(named[1])):
        return body.decode(charset, "replace")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        in_page = META_CHARSET.search(body[:2048])
        charset = to_charset(in_page[1].decode("ascii")) if in_page else None
        return body.decode(charset or "utf-8", "replace")


def to_charset(name: str) -> str | None:
    """Python's name of a charset of the web, or None."""
    plain = normalize_encoding(name).lower()
    found = aliases.get(plain, plain)
    return found if found in CHARSETS else None
