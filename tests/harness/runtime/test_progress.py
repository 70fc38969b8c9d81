"""Progress lines, bars, losses and curves."""

import sys
from pathlib import Path

import pytest

from harness.runtime.progress import Progress, Reporter, duration_text, save_curves, track
from harness.storage.rundir import RunDir


@pytest.fixture
def seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("harness.runtime.progress.time.monotonic", lambda: now[0])
    return now


def lines(capsys) -> list[str]:
    out, err = capsys.readouterr()
    assert not out
    return err.splitlines()


def test_counts_rate_and_time_left(seconds, capsys):
    known, unknown = Progress("pictures", 400), Progress("pictures", None)
    seconds[0] += 25
    known.show(150, "40 good", timed=50)
    known.show(160)  # too soon
    unknown.show(1, "1 good")
    seconds[0] += 25
    known.show(200)
    assert lines(capsys) == [
        "pictures: 150 of 400: 40 good, 2.0/s, 2 min 05 s left",
        "pictures: 1: 1 good, 0.0/s",
        "pictures: 200 of 400, 4.0/s, 50 s left",
    ]


def test_a_line_now_and_then_and_none_at_the_end(seconds, capsys):
    for _ in track(range(30), 30, "reading"):
        seconds[0] += 1
    assert lines(capsys) == ["reading: 10 of 30, 1.0/s, 20 s left", "reading: 20 of 30, 1.0/s, 10 s left"]


def test_a_run_reports_rows_lines_and_its_status(seconds, tmp_path, capsys):
    """A loss that only some steps have is averaged over those."""
    rundir = RunDir(tmp_path)
    reporter = Reporter(rundir, first_step=0, total_steps=6, batch_size=8, log_every=4)
    for step in range(1, 7):
        seconds[0] += 2
        reporter.add({"loss": step, **({"picture_loss": 0.5} if step == 3 else {})}, step)
    reporter.close()
    speed = {"sec_per_step": 2.0, "pictures_per_sec": 4.0}
    rows = [{"step": 4, "loss": 2.5, "picture_loss": 0.5, **speed}, {"step": 6, "loss": 5.5, **speed}]
    assert rundir.read_stats() == rows
    expected = [
        "step 4/6  loss 2.500 picture_loss 0.500  2.000 s/step, 4 pictures/s, 4 s left",
        "step 6/6  loss 5.500  2.000 s/step, 4 pictures/s, 0 s left",
    ]
    assert lines(capsys) == expected and all(" ".join(line.split()) in rundir.log_path.read_text() for line in expected)
    assert ((rundir.read_status() or {})["state"], (rundir.read_status() or {})["step"]) == ("running", 6)


def test_bars_on_a_terminal(seconds, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    folder = tmp_path / "a [b] {c}"
    folder.mkdir()
    reporter = Reporter(RunDir(folder), first_step=2, total_steps=6, batch_size=8, log_every=2)
    seconds[0] += 1
    reporter.add({"loss": 1.0}, 3)
    assert (reporter.bar.tasks[0].completed, reporter.bar.tasks[0].fields["text"]) == (3, "")
    seconds[0] += 1
    reporter.add({"loss": 1.0}, 4)
    assert reporter.bar.tasks[0].fields["text"] == "1.000 s/step, 8 pictures/s, 2 s left"
    reporter.log("a line above it")
    reporter.close()
    shown = "".join(lines(capsys))
    assert "a line above it" in shown and folder.name in shown and not reporter.bar.live.transient
    with Progress("others", 6) as progress:
        seconds[0] += 1
        progress.show(3, "2 good")
        assert progress.bar.tasks[0].fields["text"] == "2 good, 3.0/s, 1 s left" and progress.bar.live.transient


def test_durations():
    assert [duration_text(sec) for sec in (0.4, 59.6, 185, 7620)] == ["0 s", "1 min 00 s", "3 min 05 s", "2 h 07 min"]


def test_curves_of_what_there_is(tmp_path: Path):
    rows = [{"step": 1, "z_loss": 1.0}, {"step": 2, "latent_mse": None}]
    save_curves(rows, tmp_path / "none.png")
    save_curves(rows, tmp_path / "some.png", [("z_loss", "latent_mse")], "updates", (0.97, "before"), {"z_loss": "z"})
    assert [path.name for path in tmp_path.iterdir()] == ["some.png"]
