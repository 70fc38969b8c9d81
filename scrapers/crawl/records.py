"""What sources and fetcher exchange: picture items, pages, errors, counts."""

from dataclasses import dataclass
from typing import Any

from harness.errors import Interrupted
from harness.runtime.progress import Progress

# The status of a URL. Later runs retry only `failed`.
DONE, FAILED, GONE, REFUSED = "done", "failed", "gone", "refused"


@dataclass(frozen=True)
class PictureItem:
    """A picture to fetch, with metadata. `page`: the URL that links to it; `split`: train or valid, from its
    folder."""

    url: str
    source: str
    page: str | None = None
    class_name: str | None = None
    specs: dict[str, Any] | None = None
    license: str | None = None
    author: str | None = None
    title: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Page:
    """A page's text. `url`: after redirects."""

    url: str
    text: str


class FetchError(Exception):
    """A URL could not be fetched. `status`: failed (retried by a later run), gone or refused (for good)."""

    def __init__(self, url: str, status: str, reason: str, http: int | None = None, attempts: int = 1) -> None:
        super().__init__(f"{url}: {reason}")
        self.url, self.status, self.reason, self.http, self.attempts = url, status, reason, http, attempts


class HostStopped(FetchError):
    """No more requests to this host in this run (no robots.txt, a long Retry-After, many failures).

    The ledger gets no line for the URL: the next run retries it."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, FAILED, f"host_stopped: {reason}")


@dataclass
class FetchCounts:
    """URLs by outcome. `skipped`: settled by an earlier run; `left`: not tried, because their host is stopped."""

    done: int = 0
    failed: int = 0
    gone: int = 0
    refused: int = 0
    skipped: int = 0
    left: int = 0

    def count(self, status: str) -> None:
        setattr(self, status, getattr(self, status) + 1)

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    def show_in(self, progress: Progress) -> None:
        """Rate and time left count only requested URLs."""
        progress.show(self.total, str(self), self.total - self.skipped - self.left)

    def __str__(self) -> str:
        left = f", {self.left} left for later" if self.left else ""
        ended = f"{self.done} good, {self.failed} failed, {self.gone} gone, {self.refused} refused"
        return f"{ended}, {self.skipped} skipped{left}"


def raise_if_incomplete(counts: FetchCounts, stopped: dict[str, str]) -> None:
    """Interrupted (exit 75) when hosts were stopped and their URLs are left."""
    if stopped or counts.left:
        hosts = "; ".join(f"{host}: {reason}" for host, reason in sorted(stopped.items())[:5])
        raise Interrupted(f"stopped hosts ({hosts}): {counts}; the same command resumes later")
