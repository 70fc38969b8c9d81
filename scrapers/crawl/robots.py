"""A host's robots.txt (RFC 9309): the groups for our agent are picked out here, Protego parses their rules.

Protego stores every rule once for each agent of its group, which is quadratic; so it gets only the rules for us.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from protego import Protego

from scrapers.crawl.politeness import AGENT
from scrapers.crawl.records import REFUSED

MAX_ROBOTS_BYTES = 500 * 1024  # RFC 9309 §2.5 asks for at least this; the rest is ignored
MAX_AGE_SEC = 24 * 3600.0  # RFC 9309 §2.4
MAX_GAP_SEC = 10**9  # the file may hold numbers of any length
MAX_PARSED_HOSTS = 8  # kept: 500 KiB of rules take up to 32 MB when parsed

# The directives that Protego knows, with its misspellings and a space in place of the colon: agent, name, value.
DIRECTIVE = re.compile(
    r"(?:(user[- ]?agent)|(allow|dis{1,2}al{1,2}ow|diasllow|disallaw|crawl[- ]delay|request[- ]rate|visit[- ]time))"
    r"(?:\s*:|\s|$)\s*([^#]*)",
    re.IGNORECASE,
)
# As Protego does, also match prefixes of our name.
OUR_AGENTS = {"*": 1, **{AGENT[:length]: length for length in range(1, len(AGENT) + 1)}}


@dataclass(frozen=True)
class RobotsRules:
    """A host's rules.

    Attributes:
        text: the rules for us, as a robots.txt.
        gap_sec: minimum seconds between two requests, the larger of crawl-delay and request-rate; 0: none given.
        closed: why every URL of the host gets `closed_status`.
        stop: why the host gets no requests in this run.
    """

    text: str = ""
    gap_sec: float = 0.0
    closed: str | None = None
    closed_status: str = REFUSED
    stop: str | None = None

    def refusal(self, url: str) -> tuple[str, str] | None:
        """(status, reason) if this URL may not be fetched, else None. Takes up to a second."""
        if self.closed:
            return self.closed_status, self.closed
        if self.text and not _parse(self.text).can_fetch(url, AGENT):
            return REFUSED, "robots: robots.txt disallows it"
        return None


def rules_of_response(status: int, body: bytes) -> RobotsRules:
    """Rules from the response for /robots.txt. Takes up to a second.

    401 and 403 close the host, as in the 1996 draft and Python's robotparser; RFC 9309 §2.3.1.3 would allow everything
    for any 4xx. 429 and 5xx stop the host until another run (RFC 9309 §2.3.1.4: unreachable = disallow all, for now).
    """
    if status in (401, 403):
        return RobotsRules(closed=f"robots: robots.txt answers {status}, taken as disallowing everything")
    if 400 <= status < 500 and status != 429:
        return RobotsRules()
    if not 200 <= status < 300:
        return RobotsRules(stop=f"robots.txt answers {status}")
    if len(body) > MAX_ROBOTS_BYTES:
        body = body[:MAX_ROBOTS_BYTES].rpartition(b"\n")[0]  # drop a partial rule
    text = rules_for_us(body.decode("utf-8-sig", "replace"))
    parsed = _parse(text)
    rate = parsed.request_rate(AGENT)  # applied all day, whatever its hours
    gap_sec = max(parsed.crawl_delay(AGENT) or 0.0, min(rate.seconds, MAX_GAP_SEC) / rate.requests if rate else 0.0)
    return RobotsRules(text, gap_sec)


@lru_cache(maxsize=MAX_PARSED_HOSTS)
def _parse(text: str) -> Protego:
    return Protego.parse(text)


def rules_for_us(text: str) -> str:
    """All groups for our agent merged into one; "" if there are none. Linear in time and memory.

    A group is a list of agents and the rules after them; unknown directives, Sitemap and Host do not end it
    (RFC 9309 §2.2.4). The longest matching agent name wins.
    """
    groups: dict[str, list[str]] = {}  # name → rules
    current: list[list[str]] = []
    in_agents = False
    for line in text.splitlines():
        if (found := DIRECTIVE.match(line.strip())) is None:
            continue
        is_agent, name, value = found.groups()
        value = value.strip()
        if not is_agent:
            in_agents = False
            if value:
                rule = f"{name}: {value[:-1].replace('$', '%24')}{value[-1]}"  # Protego would keep it twice
                for rules in current:
                    rules.append(rule)
            continue
        if not in_agents:
            current, in_agents = [], True
        agent = _agent_of(value)
        if agent in OUR_AGENTS:
            rules = groups.setdefault(agent, [])
            if not any(rules is other for other in current):
                current.append(rules)
    if not groups:
        return ""
    return "\n".join(["User-agent: *", *groups[max(groups, key=OUR_AGENTS.__getitem__)]])


def _agent_of(value: str) -> str:
    """`CarForge/1.0` and `carforge*` → `carforge`."""
    return value if value == "*" else value.lower().replace("*", "").partition("/")[0].strip()
