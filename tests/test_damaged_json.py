"""Every JSON file that is read back, with every value in it replaced by one of another type: it is taken, made again,
or refused in one line."""

import copy
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blend.demo.demo import DemoRecord
from blend.demo.stages import STAGES
from blend.designs.contact_sheet import draw_contact_sheet
from blend.designs.design_set import holds_another, is_made
from blend.measures.measures import _open_set
from blend.studio.shelf import Shelf
from blend.studio.studio import shelf_row
from datasets.pack.manifest import Manifest
from datasets.pack.recipe import read_summary, threshold_of
from harness.benchmarks.benchmark import Plan, read_results
from harness.checkpoints.checkpoint import best_checkpoint, read_best, read_meta
from harness.checkpoints.pretrained import FACTS_FILE, PRETRAINED, pretrained_facts
from harness.config.experiment import load_config
from harness.errors import UserError
from harness.native.train import _check_not_lost
from harness.runtime.child import Usage
from harness.runtime.progress import save_curves
from harness.storage.cache import key_sha256
from harness.storage.lock import _refuse_or_remove, lock_holder
from harness.storage.rundir import RunDir
from harness.studiogan.process import RECORD, kill_leftover_group
from harness.studiogan.workdir import FACTS, read_facts
from scrapers.crawl.ledger import Ledger
from scrapers.crawl.store import PageCache
from tests.harness.tiny_runs import BASE

WRONG = (None, [], {}, "x", "", 1, -1, 1.5, True, [1], [[1]], {"a": 1}, [None], "9" * 400, 10**400, float("nan"))
DEEP = ("[" * 100_000 + "]" * 100_000, "[" * 900 + "]" * 900, '{"a":' * 300 + "1" + "}" * 300)
GONE = object()


def places(value: Any, levels: int = 6, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value is, and each of those inside it."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in inner if levels else ():
        yield from places(item, levels - 1, (*at, key))


def damaged(good: Any) -> Iterator[str]:
    """The record's text with one value replaced or left out, and with deep nesting in one place."""
    for at in places(good):
        for wrong in (*WRONG, *DEEP, GONE):
            changed = {"whole": copy.deepcopy(good)}
            *outer, last = ("whole", *at)
            holder: Any = changed
            for key in outer:
                holder = holder[key]
            deep = wrong if wrong in DEEP else None
            if wrong is GONE:
                del holder[last]
            else:
                holder[last] = "DEEP" if deep else wrong
            text = json.dumps(changed.get("whole"))
            yield text.replace('"DEEP"', str(deep)) if deep else text


DOCUMENT = {
    "recipe": "o=seed-1&i=0.5",
    "setting": {"latent_weight": 0.5, "style": 0.5},
    "measures": {"futurism": 1.0, "identity": None, "novelty": {"verdict": "PASS"}},
    "note": "n",
}
ENTRY = {"id": "0" * 16, "kept_at": "x", "document": DOCUMENT}
DEMO, GONE_SET = load_config(BASE, ["name=demo"]), load_config(BASE, ["data.set=gone"])
USAGE = {"seconds": 1.0, "cpu_sec": 1.0, "peak_rss_mb": 3.0}
LEDGER = {"url": "http://a", "status": "done", "sha256": "a" * 64, "attempts": 1, "file": "files/a.jpg", "specs": None}
LINE = {"file": "a.jpg", "verdict": "keep", "reason": None, "ok_score": 0.5, "view": "left", "sha256": "a" * 64}
LINE |= {"class": "c", "specs": None, "split": "train", "url": "http://a/b", "mirrored": False, "duplicate_of": None}
HTML = {"url": "http://a/b", "status": "done", "reason": None, "http": 200, "final_url": "http://a/b", "text": "x"}
HTML |= {"content_type": "text/html", "etag": None, "last_modified": None, "fetched_at": 1.0}
META = {"schema_version": 1, "sha256": {}, "step": 1}
MADE = json.loads((PRETRAINED / FACTS_FILE).read_text())
MADE["sha256"] = MADE["metrics"] = {}
for made in MADE["runs"].values():
    made["config"] = {}


def read_status() -> None:
    _check_not_lost(RunDir(Path()), None)
    RunDir(Path()).write_status("running")


def read_metrics() -> None:
    figures = RunDir(Path()).read_metrics()
    figures.get("blend", {}).get("request_sha256")
    RunDir(Path()).write_metrics("a", {"b": 1})


def read_stats() -> None:
    run = RunDir(Path())
    run.drop_stats_after(3)
    save_curves(run.read_stats(), Path("curves.png"))


def take_lock() -> None:
    lock_holder(Path("lock.json"))
    _refuse_or_remove(Path("lock.json"), lambda text: None)


def use_best() -> None:
    best_checkpoint(Path())
    if record := read_best(Path()):
        assert all(step <= 10**9 for step, _ in record["history"]) and record["last"]["step"] >= 0


def use_meta() -> None:
    try:
        read_meta(Path())
    except ValueError as error:
        raise UserError(str(error)) from error


def use_stages() -> None:
    record = DemoRecord(DEMO, STAGES)
    record.read()
    record.stop_orphan(lambda text: None)
    record.seconds_left()
    record.begin(0)
    record.end(Usage(), done=True)


def use_shelf() -> None:
    shelf = Shelf(Path())
    entries = shelf.entries()
    rows = [shelf_row(entry, {}) for entry in entries]
    if rows:
        draw_contact_sheet("x", [np.zeros((8, 8, 3), np.uint8)] * len(rows), [one["document"] for one in entries])
        shelf.write_note(rows[0]["id"], "x")
        shelf.remove(rows[0]["id"])


def put_back() -> None:
    Path("shelf.json").unlink(missing_ok=True)
    Shelf(Path()).restore("0" * 16)
    assert Shelf(Path()).entries()


def use_request() -> None:
    Path("designs.jsonl").write_text('{"file": "a"}\n')
    is_made(Path(), {"a": 1})
    holds_another(Path(), {"a": 1})


def use_sets() -> None:
    facts = _open_set(GONE_SET.data, None, Path("sets.json")).facts  # type: ignore[arg-type]
    assert sum(facts.counts) > -3 and "".join(facts.sha256s) and isinstance(facts.note, str)


def use_summary() -> None:
    threshold_of(read_summary(Path("summary-64.json")))


def use_manifest() -> None:
    with Manifest(Path("manifest.jsonl")) as manifest:
        manifest.count("view")
        manifest.lines([0])


def use_ledger() -> None:
    Ledger(Path("ledger.jsonl"), set()).close()


def use_results() -> None:
    read_results(Plan("a", "0.2.0", "b", Path(), {}))


def use_facts() -> None:
    pretrained_facts.cache_clear()
    facts = pretrained_facts(Path())
    assert all(made["step"] + made["num_classes"] > -3 for made in facts["runs"].values())
    assert all(Path(one["path"]) and len(one["img_size"]) == 2 for one in facts["sets"].values())


READERS: dict[str, tuple[Any, Callable[[], object]]] = {
    "status.json": ({"state": "failed", "step": 5, "total_steps": 6, "message": ""}, read_status),
    "metrics.json": ({"blend": {"rise": 1.0}, "measures": {"probe_auc": 1}}, read_metrics),
    "stats.jsonl": ({"step": 3, "g_loss": 1.0, "d_loss": None}, read_stats),
    "lock.json": ({"pid": 99_999_999, "host": socket.gethostname(), "process_start": "x", "token": "y"}, take_lock),
    "best.json": ({"figure": "fd", "key": {}, "history": [[5, 1.0], [6, None]], "last": {"step": 5}}, use_best),
    "meta.json": ({**META, "meta_sha256": key_sha256(META)}, use_meta),
    "runs/demo/demo/stages.json": (
        {
            "stages": {"train": {"done": True, "config_sha256": "x", "starts": 1, "usage": USAGE}},
            "running": {"stage": "train", "pid": 99_999_999, "process_start": "x", "before": USAGE},
        },
        use_stages,
    ),
    "shelf.json": ({"version": 1, "designs": [ENTRY]}, use_shelf),
    f"removed/{'0' * 16}.json": ({"place": 0, "entry": ENTRY}, put_back),
    "request.json": ({"a": 1, "generators": None}, use_request),
    "sets.json": ({"gone": {"sha256s": ["a", "b"], "counts": [1, 2], "note": ""}}, use_sets),
    "summary-64.json": ({"recipe": {"source": "x"}, "sorter": {"threshold": 0.5}}, use_summary),
    "manifest.jsonl": (LINE, use_manifest),
    "ledger.jsonl": (LEDGER, use_ledger),
    PageCache(Path())._path("http://a/b").as_posix(): (HTML, lambda: PageCache(Path()).read("http://a/b")),
    "benchmark.json": ({"engines": {"native": {"run": "x", "step": 1}}}, use_results),
    FACTS_FILE: (MADE, use_facts),
    RECORD: ({"pid": 99_999_999}, lambda: kill_leftover_group(Path())),
    FACTS: ({"config": {"a": 1}, "facts": {"b": 2}}, lambda: (read_facts(Path()) or {"facts": {}})["facts"].get("c")),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_record_is_never_a_traceback(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.storage.lock.UNREADABLE_WAIT_SEC", 0.0)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # thousands of writes: not what this is about
    good, act = READERS[name]
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(good) + "\n")
    act()  # the record as it should be is taken
    for text in damaged(good):
        path.write_text(text + "\n")
        try:
            act()
        except UserError as error:
            assert "\n" not in str(error), error
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error} for {text[:200]}")
