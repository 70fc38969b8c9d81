"""What a host's robots.txt says to us (RFC 9309): our groups are picked out here, their rules read with Protego.

Protego keeps every rule once for each agent of its group, which is quadratic: so it gets the rules for us alone.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from protego import Protego

from scrapers.crawl.politeness import AGENT
from scrapers.crawl.records import REFUSED

MAX_ROBOTS_BYTES = 500 * 1024  # RFC 9309 §2.5 asks for at least so much; the rest is not read
MAX_AGE_SEC = 24 * 3600.0  # RFC 9309 §2.4
NEVER_SEC = 10**9  # numbers of any length may stand there
PARSED_HOSTS = 8  # 500 KiB of rules take up to 32 MB when parsed, so those of few hosts stay so

# The directives that Protego knows, with its misspellings and a space in place of the colon: agent, name, value.
DIRECTIVE = re.compile(
    r"(?:(user[- ]?agent)|(allow|dis{1,2}al{1,2}ow|diasllow|disallaw|crawl[- ]delay|request[- ]rate|visit[- ]time))"
    r"(?:\s*:|\s|$)\s*([^#]*)",
    re.IGNORECASE,
)
# Protego takes the beginning of our name for us, too.
OUR_AGENTS = {"*": 1, **{AGENT[:length]: length for length in range(1, len(AGENT) + 1)}}


@dataclass(frozen=True)
class RobotsRules:
    """A host's rules. `stop`: why the host must be left alone for now; `closed`: why all of it is `closed_status`.

    `text`: the rules for us, as a robots.txt. `gap_sec`: seconds that the host wants between two requests, the longer
    of crawl-delay and request-rate; 0: no wish.
    """

    text: str = ""
    gap_sec: float = 0.0
    closed: str | None = None
    closed_status: str = REFUSED
    stop: str | None = None

    def refusal(self, url: str) -> tuple[str, str] | None:
        """Why this address may not be fetched: what that makes of it, and the reason; or None. Takes up to a second."""
        if self.closed:
            return self.closed_status, self.closed
        if self.text and not _parse(self.text).can_fetch(url, AGENT):
            return REFUSED, "robots: robots.txt disallows it"
        return None


def rules_of_response(status: int, body: bytes) -> RobotsRules:
    """Rules from the answer for /robots.txt. Takes up to a second.

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
    text = rules_for_us(body.decode("utf-8-sig", "replace"))
    parsed = _parse(text)
    rate = parsed.request_rate(AGENT)  # its hours of the day are not looked at: it holds all day
    gap_sec = max(parsed.crawl_delay(AGENT) or 0.0, min(rate.seconds, NEVER_SEC) / rate.requests if rate else 0.0)
    return RobotsRules(text, gap_sec)


@lru_cache(maxsize=PARSED_HOSTS)
def _parse(text: str) -> Protego:
    return Protego.parse(text)


def rules_for_us(text: str) -> str:
    """The groups that are meant for us as one group; "" where there are none. Linear in time and memory.

    A group is its agents and the rules behind them; what is no directive, and Sitemap and Host, do not end it
    (RFC 9309 §2.2.4). Of several names that mean us, the longest counts; its groups are put together.
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
