"""Where everything on the page comes from: configs, hashes, versions, times, and whose weights were used."""

import hashlib
from pathlib import Path
from typing import Any

from blend.report import charts
from blend.report.design_rows import number_at, text_at
from blend.report.run_facts import Found, RunFacts
from harness.checkpoints import pretrained
from harness.checkpoints.origin import other_training_set_note
from harness.config.experiment import config_to_yaml
from harness.features import READER_PATH
from harness.storage.rundir import RunDir

SHOWN_HEX = 12  # of a sha256 of 64


def provenance(found: Found) -> dict[str, Any]:
    """Runs with their facts, packages, the weights that came with the repository, and the measures' own quality."""
    runs = [("Ordinary cars", found.base), ("Concept cars", found.tuned), ("Encoder", found.encoder)]
    env = found.base.env
    packages = env.get("packages")
    return {
        "runs": [
            {"kind": kind, "facts": _facts(facts), "yaml": facts.config and config_to_yaml(facts.config)}
            for kind, facts in runs
            if facts
        ],
        "packages": packages if isinstance(packages, dict) else {},
        "python": env.get("python"),
        "platform": env.get("platform"),
        "weights": _weights(found),
        "measures": _measures(found.metrics),
        "stages": charts.stages_chart(found.metrics),
    }


def _facts(facts: RunFacts) -> list[tuple[str, str]]:
    git, status = facts.env.get("git"), facts.status
    commit = git.get("commit") if isinstance(git, dict) else None
    dirty = " with changes" if isinstance(git, dict) and git.get("dirty") else ""
    rows = [
        ("run", facts.name),
        ("state", _joined(status.get("state"), status.get("step"), status.get("total_steps"))),
        ("last written", _time(status.get("updated_at"))),
        ("last begun", _time(facts.env.get("written_at"))),
        ("code", f"{commit[:SHOWN_HEX]}{dirty}" if isinstance(commit, str) else None),
        ("device", facts.env.get("device")),
        ("imported from", facts.env.get("imported_from")),
        ("training set", _short(facts.env.get("data_sha256"))),
        ("another set", other_training_set_note(RunDir(facts.folder), facts.checkpoint) or None),
        *((name, _short(value)) for name, value in _hashes(facts.checkpoint)),
    ]
    return [(name, str(value)) for name, value in rows if value is not None]


def _joined(state: Any, step: Any, total: Any) -> str | None:
    return None if state is None else f"{state}, step {step} of {total}" if step is not None else str(state)


def _time(text: Any) -> str | None:
    """`2026-11-20T11:40:53Z` → `2026-11-20 11:40 UTC`."""
    return f"{text[:16].replace('T', ' ')} UTC" if isinstance(text, str) else None


def _hashes(checkpoint: dict[str, Any]) -> list[tuple[str, Any]]:
    """Of the newest checkpoint's weights, generators and encoders alone."""
    hashes = checkpoint.get("sha256")
    if not isinstance(hashes, dict):
        return []
    names = {name: name.removesuffix(".safetensors").replace("_ema", ", averaged") for name in sorted(hashes)}
    return [(text, hashes[name]) for name, text in names.items() if name.startswith(("generator", "encoder"))]


def _short(sha256: Any) -> str | None:
    return f"{sha256[:SHOWN_HEX]}…" if isinstance(sha256, str) else None


def _weights(found: Found) -> list[tuple[str, str]]:
    """What was trained here, and what was not."""
    start = found.config.encoder.weights
    reader = hashlib.sha256(READER_PATH.read_bytes()).hexdigest() if READER_PATH.is_file() else None
    return [
        ("Committed checkpoint used", _committed(found)),
        ("Encoder began with", "random weights" if start is None else str(start)),
        ("Reader that measures", f"the repository's own, sha256 {_short(reader)}" if reader else "missing"),
    ]


def _committed(found: Found) -> str:
    """Whether the ready-made model had a part in it, and what."""
    if origin := found.base.env.get("pretrained"):
        return f"yes: {origin}"
    source = found.base.env.get("finetuned_from")
    if isinstance(source, str) and Path(source).parent.parent.name == pretrained.BASE:
        return f"yes: training began with the ready-made model ({source})"
    return f"no: {_origin(found)}"


def _origin(found: Found) -> str:
    foreign = [facts.name for facts in (found.base, found.tuned) if facts and facts.env.get("imported_from")]
    if foreign:
        return f"{' and '.join(foreign)} came from elsewhere"
    return "both generators were trained in the runs below"


def _measures(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """How good the measures are themselves: every number that their stage left."""
    found = metrics.get("measures")
    names = found if isinstance(found, dict) else {}
    numbers = [(name.replace("_", " "), number_at(found, name)) for name in names]
    rows = [(name, f"{value:,.4g}") for name, value in numbers if value is not None]
    texts = {"measured on": text_at(found, "measured_on"), "novelty is left out": text_at(found, "left_out.novelty")}
    return [*rows, *((name, text) for name, text in texts.items() if text)]
