"""Progress of a demo, in `runs/<name>/demo/stages.json`: whatever is killed, and whenever, it is whole.

In: stages that begin, run and end. Out: which are done, and the figures of metrics.json's key `demo`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, Field, PositiveInt, TypeAdapter

from blend.demo.process import stop_orphan
from blend.demo.stages import Stage, run_folder, seconds_left
from harness.config.experiment import Config, config_to_dict
from harness.runtime.child import Usage
from harness.storage.atomic import atomic_write
from harness.storage.cache import key_sha256
from harness.storage.json_files import read_json_or_none
from harness.storage.lock import process_start
from harness.storage.rundir import RunDir


class StageRecord(BaseModel):
    """`config_sha256`: of the config that it was done with. `usage`: the sum over all its starts."""

    done: bool = False
    config_sha256: str = ""
    starts: int = 0
    usage: Usage = Field(default_factory=Usage)


class RunningStage(BaseModel):
    """`before`: what the stage had used before this start."""

    stage: str
    pid: PositiveInt | None
    process_start: str | None
    before: Usage


class RecordFile(BaseModel):
    stages: dict[str, StageRecord]
    running: RunningStage | None


RECORD = TypeAdapter(RecordFile)


class DemoRecord:
    """In a folder of its own: stages clean the run's folder while this is written.

    Attributes:
        of: stage → record.
        running: the stage that was running when the record was last written.
    """

    def __init__(self, config: Config, stages: Sequence[Stage]) -> None:
        self.config, self.stages = config, stages
        self.folder = run_folder(config) / "demo"
        self.path, self.lock_path = self.folder / "stages.json", self.folder / "lock.json"
        self.config_sha256 = key_sha256(config_to_dict(config))
        self.of = {stage.name: StageRecord() for stage in stages}
        self.running: RunningStage | None = None

    def read(self) -> None:
        """A missing or damaged record counts as empty: every stage finds for itself what is done."""
        content = read_json_or_none(self.path, RECORD)
        if content is not None:
            kept = RECORD.validate_json(json.dumps(content))
            self.of |= {name: record for name, record in kept.stages.items() if name in self.of}
            self.running = kept.running

    def _save(self) -> None:
        content = RecordFile(stages=self.of, running=self.running)
        atomic_write(self.path, content.model_dump_json(indent=1) + "\n")

    def done_count(self) -> int:
        """Stages from the first on that are done with this config and whose outputs still exist."""
        for count, stage in enumerate(self.stages):
            record = self.of[stage.name]
            done = record.done and record.config_sha256 == self.config_sha256
            if not done or not self._has_outputs(stage):
                return count
        return len(self.stages)

    def _has_outputs(self, stage: Stage) -> bool:
        return all(path.exists() for path in stage.outputs(self.config))

    def seconds_left(self) -> list[float]:
        spent_sec = {name: record.usage.seconds for name, record in self.of.items()}
        return seconds_left(self.stages, self.done_count(), spent_sec)

    def begin(self, number: int) -> None:
        """A stage starts: it and all after it are no longer done. A stage that lost its outputs counts from zero."""
        for stage in self.stages[number:]:
            record = self.of[stage.name]
            if record.done and not self._has_outputs(stage):
                record.usage, record.starts = Usage(), 0
            record.done = False
        name = self.stages[number].name
        self.of[name].starts += 1
        self.running = RunningStage(stage=name, pid=None, process_start=None, before=self.of[name].usage)

    def keep(self, pid: int, usage: Usage) -> None:
        """What the running stage has used since this start."""
        assert self.running is not None
        if self.running.pid != pid:
            self.running.pid, self.running.process_start = pid, process_start(pid)
        self.of[self.running.stage].usage = self.running.before + usage
        self._save()

    def end(self, usage: Usage, done: bool) -> None:
        assert self.running is not None
        record = self.of[self.running.stage]
        record.usage = self.running.before + usage
        record.done, record.config_sha256, self.running = done, self.config_sha256, None
        self._save()

    def stop_orphan(self, log: Callable[[str], None]) -> None:
        """Stops the stage that a killed demo left running, and counts what it has used since."""
        if self.running is None:
            return
        usage = None if self.running.pid is None else stop_orphan(self.running.pid, self.running.process_start, log)
        if usage is not None and self.running.stage in self.of:
            self.of[self.running.stage].usage = self.running.before + usage
        self.running = None
        self._save()

    def write_metrics(self) -> None:
        """The key `demo` of the run's metrics.json, unless it is the same: sums, and each stage's own, in seconds and
        megabytes, over all starts."""
        total = sum((record.usage for record in self.of.values()), Usage())
        begun = {name: _rounded(record.usage) for name, record in self.of.items() if record.starts}
        rundir, figures = RunDir(run_folder(self.config)), {**_rounded(total), "stages": begun}
        if rundir.read_metrics().get("demo") != figures:
            rundir.write_metrics("demo", figures)


def _rounded(usage: Usage) -> dict[str, Any]:
    return {key: round(value, 1) for key, value in asdict(usage).items()}
