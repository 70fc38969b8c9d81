"""Whether an answer is the picture that was asked for."""

from scrapers.crawl.magic_bytes import looks_whole, other_kind, picture_kind
from scrapers.crawl.records import FAILED, REFUSED, FetchError
from scrapers.crawl.response import Answer, TryAgain

# What servers send with 200 when they mean "not now": a log-in page, an error in JSON, nothing.
STAND_INS = ("html", "unknown", "empty")


def check_picture(answer: Answer) -> None:
    """TryAgain for a stand-in or half a picture; FetchError (refused) for a format that is not collected."""
    kind = picture_kind(answer.body)
    if kind is None:
        other = other_kind(answer.body)
        if other in STAND_INS:
            raise TryAgain(f"not_a_picture: {other}", FAILED, answer.status, host_fault=False)
        raise FetchError(str(answer.url), REFUSED, f"format: found {other}, allowed jpg, png, webp", answer.status)
    # A body that ends with its connection: only the picture itself can tell that it is whole.
    unbounded = "content-length" not in answer.headers and "transfer-encoding" not in answer.headers
    if unbounded and not looks_whole(answer.body, kind):
        raise TryAgain("short: the picture has no end", FAILED, answer.status)
