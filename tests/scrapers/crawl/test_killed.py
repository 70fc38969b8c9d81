"""A stopped or killed crawl resumes to the same set, without fetching anything twice."""

import json
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.commands import python_at_work, run_python
from tests.scrapers.faulty_site import Reply, Site

CRAWL = """
import os, signal, sys
from pathlib import Path
from tests.scrapers.faulty_site import quick_politeness
from harness.cli import run_command
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.records import PictureItem, raise_if_incomplete

folder, urls, at, half = Path(sys.argv[1]), sys.argv[2].split(), int(sys.argv[3]), sys.argv[4] == "half"
count, kill_now = 0, lambda: os.kill(os.getpid(), signal.SIGKILL)

def counted(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global count
        count += 1
        if count == at:
            if half and name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            kill_now()
        return real(*arguments, **options)
    setattr(os, name, call)

def crawl():
    with Fetcher(folder, quick_politeness()) as fetcher:
        for name in ("write", "replace", "fsync"):
            counted(name)
        tally = fetcher.fetch_pictures(PictureItem(url, "list") for url in urls)
        print(tally)
        raise_if_incomplete(tally, fetcher.stopped)

run_command(crawl)
"""


def arguments(site: Site, folder: Path, paths: Iterable[str], at: int = 0, how: str = "") -> list[str]:
    return ["-c", CRAWL, str(folder), " ".join(map(site.url, paths)), str(at), how]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "files").rglob("*") if path.is_file()}


def settled(folder: Path) -> dict[str, str]:
    """The addresses that a whole line says are settled."""
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith(b"\n")]
    last = {fields["url"]: fields["status"] for fields in found}
    return {url: status for url, status in last.items() if status != "failed"}


# At which file operation of a run (about six a picture, 360 in all), and whether in the middle of a write.
KILLS = [
    (3, ""),
    (7, "half"),
    (12, ""),
    (21, "half"),
    (28, ""),
    (33, "half"),
    (38, ""),
    (40, "half"),
    (45, ""),
    (50, "half"),
]


def test_killed_at_10_points_ends_with_the_same_set_and_fetches_nothing_it_has(site, tmp_path):
    pictures = site.add_pictures(60)
    paths = [*pictures, "/gone/1.jpg", "/gone/2.jpg"]
    site.fault_share, site.faults = 0.3, ["500", "reset", "short", "html"]
    had: list[tuple[set[str], int]] = []
    for at, how in KILLS:
        crawl = run_python(*arguments(site, tmp_path / "killed", paths, at, how))
        assert crawl.returncode == -signal.SIGKILL, (at, how)
        had.append((set(settled(tmp_path / "killed")), len(site.requests)))
    crawl = run_python(*arguments(site, tmp_path / "killed", paths))
    assert crawl.returncode == 0, crawl.stderr
    assert f"{60 - sum(url.startswith(site.url('/pictures')) for url in had[-1][0])} good" in crawl.stdout
    for urls, asked_before in had:  # what the ledger had at a kill is never asked for again
        assert urls.isdisjoint(site.url(request.path) for request in site.requests[asked_before:])
    assert 10 < len(had[-1][0]) < 62  # some of the kills came late enough to leave something
    assert set(settled(tmp_path / "killed")) == {site.url(path) for path in paths}
    # At most what was in flight at each kill (8 at once) was delivered again.
    assert sum(site.wholes().values()) <= 60 + 8 * len(KILLS) and set(site.wholes()) == set(pictures)
    run_python(*arguments(site, tmp_path / "clean", paths))
    assert contents(tmp_path / "killed") == contents(tmp_path / "clean")
    assert len(contents(tmp_path / "clean")) == 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_crawl_soon_with_75_and_all_is_written(site, tmp_path, number):
    pictures = site.add_pictures(40)

    def stop_after_ten(request):
        if len(site.wholes()) >= 10 and not signalled:
            signalled.append(crawl.send_signal(number))

    signalled: list = []
    site.after_reply = stop_after_ten
    with python_at_work(*arguments(site, tmp_path, pictures)) as crawl:
        _, err = crawl.communicate(timeout=60)
    assert crawl.returncode == 75, err
    assert "finishing what is in flight" in err and "the same command resumes" in err and "Traceback" not in err
    delivered = {site.url(path) for path in site.wholes()}
    assert set(settled(tmp_path)) == delivered and 10 <= len(delivered) < 40
    site.requests.clear()
    assert run_python(*arguments(site, tmp_path, pictures)).returncode == 0 and len(contents(tmp_path)) == 40
    assert delivered.isdisjoint(map(site.url, site.paths()))


def test_a_signal_does_not_wait_for_a_host_that_wants_pauses(site, tmp_path):
    pictures = site.add_pictures(5)
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nCrawl-delay: 250")
    # A moment later, when all wait for their turn.
    site.after_reply = lambda request: threading.Timer(0.7, crawl.send_signal, [signal.SIGTERM]).start()
    with python_at_work(*arguments(site, tmp_path, pictures)) as crawl:
        _, err = crawl.communicate(timeout=60)  # 250 s otherwise
    assert crawl.returncode == 75 and site.paths() == ["/robots.txt"], err


def test_stopped_hosts_end_with_75(site, tmp_path):
    pictures = site.add_pictures(3)
    site.pages["/robots.txt"] = Reply(status=503, headers={"Retry-After": "4000"})
    crawl = run_python(*arguments(site, tmp_path, pictures))
    assert crawl.returncode == 75 and "3 left for later" in crawl.stdout
    assert "asks for a pause of 4000 s" in crawl.stderr
