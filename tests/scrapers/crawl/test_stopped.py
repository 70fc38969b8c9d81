"""Ctrl-C ends a crawl in which something hangs for ten minutes."""

import os
import signal
import threading
from pathlib import Path

import pytest

from harness.errors import Interrupted
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.records import PictureItem
from tests.commands import python_at_work, wait_until
from tests.scrapers.faulty_site import quick_politeness

CRAWL = """
import os, sys, time
from pathlib import Path
from tests.scrapers.faulty_site import quick_politeness
from harness.cli import run_command
from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.records import PictureItem

folder = Path(sys.argv[1])

def hang(*_):
    (folder / "hangs").touch()
    time.sleep(600)

def wanted(url):
    return PictureItem(url, "list")

def crawl():
    url, source = None, wanted
    with Fetcher(folder, quick_politeness(silence_timeout_sec=900, request_timeout_sec=900)) as fetcher:
        CASE
        fetcher.fetch_pictures(map(source, [url or sys.argv[2], ""]))

run_command(crawl)
"""
# What does not end, and how many signals it takes.
CASES = {
    "a transfer": ("pass", 1),
    "a name server": ("import socket; socket.getaddrinfo = hang; url = 'http://a.example/1.jpg'", 1),
    "reading robots.txt": ("from scrapers.crawl import client; client.rules_of_response = hang", 1),
    "checking an address": ("from scrapers.crawl.robots import RobotsRules; RobotsRules.refusal = hang", 1),
    "the loop": ("from scrapers.crawl.client import Client; Client._fetch_rules = hang", 2),
    "the source, and the loop": (
        "from scrapers.crawl.client import Client; Client._fetch_rules = hang; "
        "source = lambda url: wanted(url) if url else time.sleep(600)",
        2,
    ),
    "reading a page": (
        "from scrapers.crawl.page_text import READING; READING.cpu_sec = 900; READING.call(int); "
        "(folder / 'hangs').touch(); READING.call(time.sleep, 600)",
        1,
    ),
    "a pause": ("(folder / 'hangs').touch(); fetcher.pause(600)", 1),
}


@pytest.mark.parametrize("case", CASES)
def test_a_signal_ends_a_crawl_in_which_something_hangs(site, tmp_path, case):
    site.add_pictures(1)
    site.fault_for = lambda path, before: "drip" if case == "a transfer" and path != "/robots.txt" else None
    hangs, log = tmp_path / "hangs", tmp_path / "log"
    code, signals = CASES[case]
    with open(log, "w") as stderr:
        arguments = "-c", CRAWL.replace("CASE", code), str(tmp_path), site.url("/pictures/0.jpg")
        with python_at_work(*arguments, stderr=stderr) as crawl:
            wait_until(lambda: hangs.exists() or "/pictures/0.jpg" in site.paths(), case)
            crawl.send_signal(signal.SIGINT)
            wait_until(lambda: "finishing what is in flight" in log.read_text(), case)
            if signals > 1:
                crawl.send_signal(signal.SIGINT)
            crawl.wait(timeout=60)  # 600 s otherwise
    assert crawl.returncode == 75, log.read_text()
    assert "the same command resumes" in log.read_text() and "Traceback" not in log.read_text()


def test_a_pause_that_nobody_stops_comes_to_its_end(tmp_path):
    with Fetcher(tmp_path, quick_politeness()) as fetcher:
        fetcher.pause(0.01)
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(Interrupted):
            fetcher.pause(600)
        with pytest.raises(Interrupted):
            fetcher.fetch_pictures([PictureItem("http://127.0.0.1:1/a.jpg", "list")])


def test_a_ledger_that_is_closed_is_no_file_of_anybody(tmp_path: Path):
    with Fetcher(tmp_path, quick_politeness()) as fetcher:
        descriptor = fetcher.ledger.descriptor
    assert fetcher.ledger.descriptor != descriptor
    with pytest.raises(OSError):
        os.write(fetcher.ledger.descriptor, b"late")
