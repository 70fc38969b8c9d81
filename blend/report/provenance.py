"""The section with the origin of the page: configs, hashes, versions, times, and whose weights were used."""

import hashlib
from pathlib import Path
from typing import Any

from blend.report import charts
from blend.report.reading import dict_at, number_at, text_at
from blend.report.run_facts import ReportData, RunFacts
from harness.checkpoints import pretrained
from harness.checkpoints.origin import other_training_set_note
from harness.config.experiment import config_to_yaml
from harness.features import READER_PATH
from harness.storage.rundir import RunDir

SHOWN_HEX = 12  # of a sha256 of 64


def provenance(data: ReportData) -> dict[str, Any]:
    """Facts of the runs, packages, use of the repository's weights, quality of the measures, times."""
    runs = [("Ordinary cars", data.base), ("Concept cars", data.tuned), ("Encoder", data.encoder)]
    env = data.base.env
    return {
        "runs": [
            {"kind": kind, "facts": _facts(facts), "yaml": facts.config and config_to_yaml(facts.config)}
            for kind, facts in runs
            if facts
        ],
        "packages": dict_at(env, "packages"),
        "python": env.get("python"),
        "platform": env.get("platform"),
        "weights": _weights(data),
        "measures": _measures(data.metrics),
        "stages": charts.stages_chart(data.metrics),
    }


def _facts(facts: RunFacts) -> list[tuple[str, str]]:
    env, status, git = facts.env, facts.status, dict_at(facts.env, "git")
    state, step = status.get("state"), status.get("step")
    progress = state if state is None or step is None else f"{state}, step {step} of {status.get('total_steps')}"
    commit, dirty = text_at(git, "commit")[:SHOWN_HEX], " with changes" if git.get("dirty") else ""
    rows = [
        ("run", facts.name),
        ("state", progress),
        ("last written", _time(status.get("updated_at"))),
        ("last started", _time(env.get("written_at"))),
        ("code", f"{commit}{dirty}" if commit else None),
        ("device", env.get("device")),
        ("imported from", env.get("imported_from")),
        ("training set", _short(env.get("data_sha256"))),
        ("another set", other_training_set_note(RunDir(facts.folder), facts.checkpoint) or None),
        *((name, _short(value)) for name, value in _hashes(facts.checkpoint)),
    ]
    return [(name, str(value)) for name, value in rows if value is not None]


def _time(text: Any) -> str | None:
    """`2026-11-20T11:40:53Z` → `2026-11-20 11:40 UTC`."""
    return f"{text[:16].replace('T', ' ')} UTC" if isinstance(text, str) else None


def _hashes(checkpoint: dict[str, Any]) -> list[tuple[str, Any]]:
    """Of the generators and encoders of the newest checkpoint."""
    hashes = dict_at(checkpoint, "sha256")
    names = {name: name.removesuffix(".safetensors").replace("_ema", ", averaged") for name in sorted(hashes)}
    return [(text, hashes[name]) for name, text in names.items() if name.startswith(("generator", "encoder"))]


def _short(sha256: Any) -> str | None:
    return f"{sha256[:SHOWN_HEX]}…" if isinstance(sha256, str) else None


def _weights(data: ReportData) -> list[tuple[str, str]]:
    """Which weights were trained here."""
    start = data.config.encoder.weights
    reader = hashlib.sha256(READER_PATH.read_bytes()).hexdigest() if READER_PATH.is_file() else None
    return [
        ("Committed checkpoint used", _committed(data)),
        ("Encoder started from", "random weights" if start is None else str(start)),
        ("Reader for measures", f"of the repository, sha256 {_short(reader)}" if reader else "missing"),
    ]


def _committed(data: ReportData) -> str:
    """Whether the ready-made model was used."""
    if origin := data.base.env.get("pretrained"):
        return f"yes: {origin}"
    source = data.base.env.get("finetuned_from")
    if isinstance(source, str) and Path(source).parent.parent.name == pretrained.BASE:
        return f"yes: training started from the ready-made model ({source})"
    foreign = [facts.name for facts in (data.base, data.tuned) if facts and facts.env.get("imported_from")]
    if foreign:
        return f"no: {' and '.join(foreign)} came from elsewhere"
    return "no: both generators were trained in the runs below"


def _measures(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Every figure about the measures themselves."""
    found = dict_at(metrics, "measures")
    numbers = [(name.replace("_", " "), number_at(found, name)) for name in found]
    rows = [(name, f"{value:,.4g}") for name, value in numbers if value is not None]
    texts = {"measured on": text_at(found, "measured_on"), "novelty is left out": text_at(found, "left_out.novelty")}
    return [*rows, *((name, text) for name, text in texts.items() if text)]
