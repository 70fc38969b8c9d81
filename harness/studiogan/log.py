"""Parser of StudioGAN's output. No line makes it fail.

In: whole lines. Out: events; a line of unknown form is `Unknown`.
"""

import math
import re
from dataclasses import dataclass

# Format of its lines: src/utils/log.py, the same in 0.2.0 and 0.4.0.
LINE = re.compile(r"\[[A-Z]+\] [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} > (.*)")
NUMBER = r"([-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?(?:e[-+]?[0-9]{1,4})?|inf|nan))(?=\s|$)"
STEP = r"([0-9]{1,12})"
# src/worker.py, LOG_FORMAT: Discriminator_loss and Generator_loss in 0.2.0, Gen_loss and Dis_loss in 0.4.0.
PROGRESS = re.compile(rf"Step:\s+{STEP} Progress: [0-9.]+% Elapsed: ")
D_LOSS = re.compile(rf" Dis(?:criminator)?_loss: {NUMBER}")
G_LOSS = re.compile(rf" Gen(?:erator)?_loss: {NUMBER}")
FIGURES = {
    name: re.compile(pattern)
    for name, pattern in {
        "fid": rf"FID score \(Step: {STEP}, Using \w+ moments\): {NUMBER}",
        "best_fid": rf"Best FID score \(Step: {STEP}, Using \w+ moments\): {NUMBER}",
        "is": rf"Inception score \(Step: {STEP}, [0-9]+ generated images\): {NUMBER}",
        "f8": rf"F_8 score \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "f1_8": rf"F_1/8 score \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "precision": rf"Improved Precision \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "recall": rf"Improved Recall \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "density": rf"Density \(Step: {STEP}, Using \w+ images\): {NUMBER}",
        "coverage": rf"Coverage \(Step: {STEP}, Using \w+ images\): {NUMBER}",
    }.items()
}
SHIM_PREFIX = "carforge: "  # of the shim's own lines: a word, then key=value


@dataclass(frozen=True)
class Losses:
    """Losses of update `step` (1-based); may be nan or infinite."""

    step: int
    d_loss: float
    g_loss: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.d_loss) and math.isfinite(self.g_loss)


@dataclass(frozen=True)
class Figure:
    """A figure that StudioGAN measured; `name` is a key of FIGURES."""

    step: int
    name: str
    value: float


@dataclass(frozen=True)
class ShimEvent:
    """A line of the shim, as `saved step=6 best=0`: the first word, and the rest."""

    word: str
    rest: str


@dataclass(frozen=True)
class Note:
    """Any other line in the format of its log."""

    text: str


@dataclass(frozen=True)
class Unknown:
    text: str


Event = Losses | Figure | ShimEvent | Note | Unknown


def parse_line(line: str) -> Event:
    if line.startswith(SHIM_PREFIX):
        word, _, rest = line.removeprefix(SHIM_PREFIX).strip().partition(" ")
        return ShimEvent(word, rest)
    found = LINE.search(line)  # not `match`: a progress bar may precede it
    if not found:
        return Unknown(line)
    text = found[1].strip()
    if text.startswith("Step:"):
        return _parse_progress(text) or Unknown(line)
    for name, pattern in FIGURES.items():
        if figure := pattern.match(text):
            return Figure(int(figure[1]), name, float(figure[2]))
    return Note(text)


def _parse_progress(text: str) -> Losses | None:
    step, d_loss, g_loss = PROGRESS.match(text), D_LOSS.search(text), G_LOSS.search(text)
    if not (step and d_loss and g_loss):
        return None
    return Losses(int(step[1]), float(d_loss[1]), float(g_loss[1]))
