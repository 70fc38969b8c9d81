"""What the demo has done and used so far, kept in `runs/<name>/demo/`, whatever kills it and whenever.

In: stages that begin, go on and end. Out: which are done, and the figures of metrics.json's key `demo`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel, PositiveInt, TypeAdapter

from blend.demo.process import stop_left_behind
from blend.demo.stages import Stage, run_folder
from harness.config.experiment import Config, config_to_dict
from harness.runtime.child import Usage
from harness.storage.atomic import atomic_write
from harness.storage.cache import key_sha256
from harness.storage.json_files import read_json_or_none
from harness.storage.lock import process_start
from harness.storage.rundir import RunDir


@dataclass
class StageRecord:
    """`done` and `config_sha256` tell whether it has to run again; `usage` adds up over all its starts."""

    done: bool = False
    config_sha256: str = ""
    starts: int = 0
    usage: Usage = field(default_factory=Usage)


class RunningStage(BaseModel):
    """A stage at work; `before`: what it had used before this start."""

    stage: str
    pid: PositiveInt | None
    process_start: str | None
    before: Usage


class RecordFile(BaseModel):
    stages: dict[str, StageRecord]
    running: RunningStage | None


RECORD = TypeAdapter(RecordFile)


class DemoRecord:
    """`stages.json` in a folder of its own: stages clean the run's folder while this is being written."""

    def __init__(self, config: Config, stages: Sequence[Stage]) -> None:
        self.config, self.stages = config, stages
        self.folder = run_folder(config) / "demo"
        self.path, self.lock_path = self.folder / "stages.json", self.folder / "lock.json"
        self.config_sha256 = key_sha256(config_to_dict(config))
        self.of = {stage.name: StageRecord() for stage in stages}
        self.running: dict[str, Any] | None = None

    def read(self) -> None:
        """A record that is not there, or that somebody has damaged, is an empty one: stages know what is done."""
        content = read_json_or_none(self.path, RECORD)
        if content is None:
            return
        kept = RECORD.validate_json(json.dumps(content))
        self.of |= {name: record for name, record in kept.stages.items() if name in self.of}
        self.running = kept.running and kept.running.model_dump()

    def _save(self) -> None:
        stages = {name: asdict(record) for name, record in self.of.items()}
        atomic_write(self.path, json.dumps({"stages": stages, "running": self.running}, indent=1) + "\n")

    def done_count(self) -> int:
        """Stages from the first on that are done with this config, and whose work is still there."""
        for count, stage in enumerate(self.stages):
            record = self.of[stage.name]
            done = record.done and record.config_sha256 == self.config_sha256
            if not done or not _is_there(stage, self.config):
                return count
        return len(self.stages)

    def begin(self, number: int) -> None:
        """A stage is about to start: it and those after it are open again. What lost its work counts from zero."""
        for stage in self.stages[number:]:
            record = self.of[stage.name]
            if record.done and not _is_there(stage, self.config):
                record.usage, record.starts = Usage(), 0
            record.done = False
        name = self.stages[number].name
        self.of[name].starts += 1
        self.running = {"stage": name, "pid": None, "process_start": None, "before": asdict(self.of[name].usage)}

    def keep(self, pid: int, usage: Usage) -> None:
        """What the running stage has used since this start."""
        assert self.running is not None
        if self.running["pid"] != pid:
            self.running |= {"pid": pid, "process_start": process_start(pid)}
        self.of[self.running["stage"]].usage = Usage(**self.running["before"]) + usage
        self._save()

    def end(self, usage: Usage, done: bool) -> None:
        assert self.running is not None
        record = self.of[self.running["stage"]]
        record.usage = Usage(**self.running["before"]) + usage
        record.done, record.config_sha256, self.running = done, self.config_sha256, None
        self._save()

    def stop_left_behind(self, log: Callable[[str], None]) -> None:
        """Ends the stage that a killed demo left at work, and counts what it went on to use."""
        if self.running is None:
            return
        usage = stop_left_behind(self.running["pid"], self.running["process_start"], log)
        if usage is not None and self.running["stage"] in self.of:
            self.of[self.running["stage"]].usage = Usage(**self.running["before"]) + usage
        self.running = None
        self._save()

    def seconds(self) -> dict[str, float]:
        return {name: record.usage.seconds for name, record in self.of.items()}

    def figures(self) -> dict[str, Any]:
        """Sums and each stage's own, in seconds and megabytes; of what this folder has taken in all, repeats too."""
        total = sum((record.usage for record in self.of.values()), Usage())
        begun = {name: _rounded(record.usage) for name, record in self.of.items() if record.starts}
        return {**_rounded(total), "stages": begun}

    def write_metrics(self) -> None:
        """The key `demo` of the run's metrics.json, and a line of its history, unless they say so already."""
        rundir, figures = RunDir(run_folder(self.config)), self.figures()
        if rundir.read_metrics().get("demo") != figures:
            rundir.write_metrics("demo", figures)


def _is_there(stage: Stage, config: Config) -> bool:
    return all(path.exists() for path in stage.leaves(config))


def _rounded(usage: Usage) -> dict[str, float]:
    return {key: round(value, 1) for key, value in asdict(usage).items()}
