"""What a host's robots.txt says to us (RFC 9309), read with Protego."""

from dataclasses import dataclass

from protego import Protego

from scrapers.crawl.politeness import AGENT
from scrapers.crawl.records import REFUSED

MAX_ROBOTS_BYTES = 500 * 1024  # RFC 9309 §2.5 asks for at least so much; the rest is not read
MAX_AGE_SEC = 24 * 3600.0  # RFC 9309 §2.4


@dataclass(frozen=True)
class RobotsRules:
    """A host's rules. `stop`: why the host must be left alone for now; `closed`: why all of it is `closed_status`."""

    parsed: Protego | None = None
    closed: str | None = None
    closed_status: str = REFUSED
    stop: str | None = None

    def refusal(self, url: str) -> tuple[str, str] | None:
        """Why this address may not be fetched: what that makes of it, and the reason; or None."""
        if self.closed:
            return self.closed_status, self.closed
        if self.parsed is not None and not self.parsed.can_fetch(url, AGENT):
            return REFUSED, "robots: robots.txt disallows it"
        return None

    @property
    def gap_sec(self) -> float:
        """Seconds that the host wants between two requests: the longer of crawl-delay and request-rate; 0: no wish."""
        if self.parsed is None:
            return 0.0
        rate = self.parsed.request_rate(AGENT)  # its hours of the day are not looked at: it holds all day
        return max(self.parsed.crawl_delay(AGENT) or 0.0, rate.seconds / rate.requests if rate else 0.0)


def rules_of_answer(status: int, body: bytes) -> RobotsRules:
    """Rules from the answer for /robots.txt.

    401 and 403 close the host. RFC 9309 §2.3.1.3 would allow everything for any 4xx; the older convention (the 1996
    draft, Python's robotparser) is kept here, as a host that hides even its rules from us does not want us.
    429 and 5xx stop the host until another run (RFC 9309 §2.3.1.4: unreachable = disallow all, for now).
    """
    if status in (401, 403):
        return RobotsRules(closed=f"robots: robots.txt answers {status}, taken as a refusal of everything")
    if 400 <= status < 500 and status != 429:
        return RobotsRules()
    if not 200 <= status < 300:
        return RobotsRules(stop=f"robots.txt answers {status}")
    if len(body) > MAX_ROBOTS_BYTES:
        body = body[:MAX_ROBOTS_BYTES].rpartition(b"\n")[0]  # no half rule
    return RobotsRules(parsed=Protego.parse(body.decode("utf-8", "replace")))
