"""The parser of StudioGAN's log understands both versions and never fails, on mutated or cut logs either."""

import math
import random

import pytest

from harness.runtime.child import LINE_BYTES, LineSplitter
from harness.studiogan.log import Figure, Losses, Note, ShimEvent, Unknown, parse_line
from tests.harness.studiogan.mutated_lines import mutated

HEAD = "[INFO] 2026-03-04 05:06:07 > "
# In the form of both versions' src/worker.py; numbers of our own.
KNOWN = {
    HEAD + "Step:     100 Progress: 0.2% Elapsed: 0:02:31 temperature: No ada_p: No Discriminator_loss: 1.73205 "
    "Generator_loss: -0.414214 ": Losses(100, 1.73205, -0.414214),
    HEAD + "Step:   40000 Progress: 100.0% Elapsed: 2 days, 13:00:31 temperature: No ada_p: 0.25 "
    "Discriminator_loss: 2 Generator_loss: 1e-05 ": Losses(40000, 2.0, 1e-5),
    HEAD + "Step:    100 Progress: 0.1% Elapsed: 0:01:00 Gen_loss: 0.25 Dis_loss: 1.5 Cls_loss: N/A Topk:  N/A "
    "aa_p: N/A ": Losses(100, 1.5, 0.25),
    HEAD + "Step:       7 Progress: 0.0% Elapsed: 0:00:31 temperature: No ada_p: No Discriminator_loss: inf "
    "Generator_loss: -inf ": Losses(7, math.inf, -math.inf),
    HEAD + "FID score (Step: 2000, Using valid moments): 58.17": Figure(2000, "fid", 58.17),
    HEAD + "Best FID score (Step: 1000, Using valid moments): 51.5": Figure(1000, "best_fid", 51.5),
    HEAD + "Inception score (Step: 2000, 512 generated images): 2.75": Figure(2000, "is", 2.75),
    HEAD + "F_8 score (Step: 2000, Using valid images): 0.5": Figure(2000, "f8", 0.5),
    HEAD + "F_1/8 score (Step: 2000, Using valid images): 0.75": Figure(2000, "f1_8", 0.75),
    HEAD + "Improved Precision (Step: 20, Using train images): 0.7": Figure(20, "precision", 0.7),
    HEAD + "Improved Recall (Step: 20, Using train images): 0.1": Figure(20, "recall", 0.1),
    HEAD + "Density (Step: 20, Using train images): 0.9": Figure(20, "density", 0.9),
    HEAD + "Coverage (Step: 20, Using train images): 0.8": Figure(20, "coverage", 0.8),
    HEAD + "Start training....": Note("Start training...."),
    "[WARNING] 2026-03-04 05:06:07 > Save model to checkpoints/run": Note("Save model to checkpoints/run"),
    "carforge: saved step=6 folder=checkpoints/step-00000006 best=0": ShimEvent(
        "saved", "step=6 folder=checkpoints/step-00000006 best=0"
    ),
    "Generator(": Unknown("Generator("),
    HEAD[:-1]: Unknown(HEAD[:-1]),
}


@pytest.mark.parametrize("line", KNOWN)
def test_lines_of_both_versions(line: str) -> None:
    assert parse_line(line) == KNOWN[line]
    bar = " 50%|#####     | 1/2 [00:01<00:01]" + line  # a progress bar that was not ended
    if line.startswith("["):
        assert parse_line(bar) == (Unknown(bar) if isinstance(KNOWN[line], Unknown) else KNOWN[line])


def test_a_loss_that_is_no_number() -> None:
    text = HEAD + "Step:       7 Progress: 0.0% Elapsed: 0:00:31 Gen_loss: nan Dis_loss: 1.0 "
    event = parse_line(text)
    assert isinstance(event, Losses) and math.isnan(event.g_loss) and event.d_loss == 1.0 and not event.finite
    for broken in ("1.0.0", "one", "1_000", "", "1.0x", "٣"):
        line = text.replace("1.0", broken)
        assert parse_line(line) == Unknown(line)


def test_a_thousand_mutated_lines_are_read_without_an_error() -> None:
    rng, understood, lost = random.Random(0), 0, 0
    lines = list(KNOWN)
    for number in range(1000):
        for line in LineSplitter().feed(mutated(lines[number % len(lines)], lines, rng) + b"\n"):
            event = parse_line(line)
            understood, lost = understood + isinstance(event, Losses | Figure), lost + isinstance(event, Unknown)
            if isinstance(event, Losses | Figure):
                assert 0 <= event.step < 10**12
    assert understood > 80 and lost > 300  # the mutations neither spare nor destroy everything


def test_a_log_cut_anywhere_gives_the_same_events_or_none() -> None:
    whole = ("\n".join(KNOWN) + "\n").encode()
    wanted = [parse_line(line.strip()) for line in KNOWN]
    for step in (1, 7, 64, 1000):
        splitter = LineSplitter()
        lines = [line for at in range(0, len(whole), step) for line in splitter.feed(whole[at : at + step])]
        assert [parse_line(line) for line in lines] == wanted
        assert splitter.flush() == ""
    for end in range(0, len(whole), 11):  # it stops in mid-line: no half number is taken for a whole one
        splitter = LineSplitter()
        events = [parse_line(line) for line in splitter.feed(whole[:end])]
        assert events == wanted[: len(events)]
        parse_line(splitter.flush())


def test_a_line_without_an_end_is_cut_and_read_in_time() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(20) for line in splitter.feed(b"7" * (LINE_BYTES // 4))]
    assert 3 <= len(lines) <= 5 and all(len(line) == LINE_BYTES for line in lines)
    # Each of these would take minutes with a pattern that goes back and forth.
    for text in ("Step: " + "7" * LINE_BYTES, "Step: 1 Progress: 1% Elapsed: Dis_loss: " + "7." * (LINE_BYTES // 2)):
        assert isinstance(parse_line(HEAD + text), Unknown)
    assert isinstance(parse_line("[" * LINE_BYTES), Unknown)
    assert isinstance(parse_line(HEAD + "Step:" + " " * LINE_BYTES), Unknown)
