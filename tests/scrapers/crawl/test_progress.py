"""What a crawl says of itself while it runs."""

import sys

import pytest

from scrapers.crawl.progress import Progress, say
from scrapers.crawl.records import Tally


@pytest.fixture
def seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("scrapers.crawl.progress.time.monotonic", lambda: now[0])
    return now


def test_rate_counts_and_time_left(seconds):
    progress = Progress(400)
    tally = Tally(done=40, failed=6, gone=2, refused=2, skipped=100)
    assert progress.text(tally, 125.0) == (
        "150 of 400: 40 good, 6 failed, 2 gone, 2 refused, 100 skipped, 2.0/s, 125 s left"
    )
    assert Progress(None).text(Tally(done=1), 101.0) == "1: 1 good, 0 failed, 0 gone, 0 refused, 0 skipped, 1.0/s"


def test_a_line_now_and_then_on_stderr(seconds, capsys):
    with Progress(50) as progress:
        for number in range(1, 31):
            seconds[0] += 1
            progress.show(Tally(done=number))
    out, err = capsys.readouterr()
    assert not out and [line.split(":")[1] for line in err.splitlines()] == [" 10 of 50", " 20 of 50", " 30 of 50"]


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(50) as progress:
        progress.show(Tally(done=3))
        assert progress.bar.tasks[0].completed == 3 and "3 good" in progress.bar.tasks[0].fields["text"]


def test_odd_names_are_told(capsys):
    say("a\udcffb")
    assert capsys.readouterr().err == "a\\udcffb\n"
