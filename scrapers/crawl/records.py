"""What the sources and the fetcher say to each other."""

from dataclasses import dataclass
from typing import Any

from harness.errors import Interrupted
from harness.runtime.progress import Progress

# What becomes of an address. Only `failed` is tried again by a later run.
DONE, FAILED, GONE, REFUSED = "done", "failed", "gone", "refused"


@dataclass(frozen=True)
class PictureItem:
    """A picture that a source asks for, with what the source knows of it. `page` is the address it was found on;
    `split`: train or valid, where its folder says it."""

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
    """A page's text. `url` is where it was found in the end, after redirects."""

    url: str
    text: str


class FetchError(Exception):
    """An address that cannot be had: `status` says for how long (failed: now; gone, refused: for good)."""

    def __init__(self, url: str, status: str, reason: str, http: int | None = None, attempts: int = 1) -> None:
        super().__init__(f"{url}: {reason}")
        self.url, self.status, self.reason, self.http, self.attempts = url, status, reason, http, attempts


class HostStopped(FetchError):
    """The host wants no more requests for now (its robots.txt cannot be had, or it asks for a long pause).

    Nothing is written about the address: the next run asks again."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, FAILED, f"host_stopped: {reason}")


@dataclass
class FetchCounts:
    """How many addresses ended how. `skipped`: settled by an earlier run; `left`: not tried, their host is stopped."""

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
        """The rate and the time left are of what had to be asked for."""
        progress.show(self.total, str(self), self.total - self.skipped - self.left)

    def __str__(self) -> str:
        parts = [f"{self.done} good", f"{self.failed} failed", f"{self.gone} gone", f"{self.refused} refused"]
        parts += [f"{self.skipped} skipped"] + ([f"{self.left} left for later"] if self.left else [])
        return ", ".join(parts)


def raise_if_incomplete(tally: FetchCounts, stopped: dict[str, str]) -> None:
    """Interrupted (exit 75) when hosts were stopped, with their pages or pictures left for another day."""
    if stopped or tally.left:
        hosts = "; ".join(f"{host}: {reason}" for host, reason in sorted(stopped.items())[:5])
        raise Interrupted(f"stopped hosts ({hosts}): {tally}; later, the same command goes on with what is left")
