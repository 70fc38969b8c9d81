"""The studio without a browser: its answers, its shelf, its jobs, and what it refuses."""

import errno
import io
import json
import os
import shutil
import signal
import socket
import sys
import threading
import urllib.request
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from blend.generator.kinds import KINDS
from tests.blend.tiny_blend import add_encoder, make_tiny_runs
from tests.commands import python_at_work, wait_until
from tests.harness.pictures import picture_file, png_header
from tests.refusals import refused

pytest.importorskip("fastapi", reason="needs the ui extra: pip install fastapi uvicorn")
from starlette.testclient import TestClient

import blend.designs.parents
import blend.studio.jobs
from blend.designs.export import draw_command
from blend.designs.parents import MAX_UPLOAD_BYTES
from blend.inversion.cached import invert_parents
from blend.studio import latest_only_queue
from blend.studio.jobs import Jobs
from blend.studio.latest_only_queue import LatestOnlyQueue, Superseded
from blend.studio.load_test import drag
from blend.studio.server import make_app
from blend.studio.shelf import Shelf
from harness.errors import UserError
from harness.storage.atomic import atomic_write

HERE = "http://127.0.0.1:8123"
BYTES = {"Content-Type": "application/octet-stream"}
SEEDS = "o=seed-1&c=seed-2&i=0.5"


def client_of(studio: Any, prepared: bool = True) -> TestClient:
    client = TestClient(make_app(studio), base_url=HERE, headers={"Origin": HERE})
    if prepared:
        finished(client, "prepare")
    return client


@pytest.fixture
def client(make_studio) -> TestClient:
    return client_of(make_studio())


def finished(client: TestClient, key: str) -> dict[str, Any]:
    """The last event of a job."""
    events = [
        json.loads(line[6:]) for line in client.get(f"/jobs/{key}").text.splitlines() if line.startswith("data: ")
    ]
    assert events[-1]["state"] in ("done", "failed", "cancelled")
    return events[-1]


def dropped(client: TestClient, seed: int) -> str:
    return client.post("/uploads", content=picture_file(seed), headers=BYTES).json()["reference"]


def searched(client: TestClient, side: str, reference: str) -> dict[str, Any]:
    begun = client.post("/jobs/parent", json={"side": side, "reference": reference}).json()
    return finished(client, begun["key"])


def test_a_picture_error_is_compared_with_the_median_of_the_run(make_studio):
    """The median is known once the held-out pictures have been inverted, as `make measure` does."""
    studio = make_studio()
    client = client_of(studio)
    assert searched(client, "ordinary", dropped(client, 1))["result"]["median_error"] is None
    session = studio.session
    parent_store, parents = session.parent_store, session.parent_store.held_out["ordinary"]
    kept = invert_parents(session.config, parent_store.generator, parent_store.encoders, parents, "ordinary")
    found = searched(client, "ordinary", dropped(client, 3))["result"]
    assert found["median_error"] == pytest.approx(float(kept.error.median()), abs=1e-4) and found["error"] is not None


def test_training_pictures_are_the_gallery_of_sets_without_held_out_ones(make_studio, monkeypatch):
    folder = Path("without").absolute()
    config = make_tiny_runs(folder, data__valid_fraction=0)
    monkeypatch.chdir(folder)
    add_encoder(config)
    client = client_of(make_studio())
    assert "Training pictures: nothing is held out of the sets" in client.get("/").text
    names = {side: client.get(f"/gallery/{side}").json()["references"][0] for side in KINDS}
    for side, name in names.items():
        assert name.startswith("train-") and searched(client, side, name)["state"] == "done"
        assert client.get(f"/parent/{side}/{name}").status_code == 200
    measures = client.get(f"/measure?o={names['ordinary']}&c={names['concept']}").json()
    assert measures["futurism"] is not None and measures["identity"] is not None
    assert measures["novelty"]["nearest"] == {} and "held out from training" in measures["novelty"]["left_out"]
    assert client.get("/parent/ordinary/train-99999").status_code == 409


# ---- designs ----


def test_two_dropped_pictures_become_a_design(client):
    ordinary, concept = dropped(client, 1), dropped(client, 2)
    query = f"o={ordinary}&c={concept}"
    assert client.get(f"/draw?{query}").json()["not_inverted"] == {"side": "ordinary", "reference": ordinary}
    for side, reference in (("ordinary", ordinary), ("concept", concept)):
        end = searched(client, side, reference)
        assert end["state"] == "done" and 0 < end["result"]["error"] < 1 and end["done"] == end["total"]
    pictures = {client.get(f"/draw?{query}&i={i}").json()["picture"] for i in (0, 0.5, 1)}
    assert len(pictures) == 3 and all(picture.startswith("data:image/jpeg;base64,") for picture in pictures)
    measures = client.get(f"/measure?{query}&i=1").json()
    assert {"futurism", "identity", "novelty"} == set(measures) and set(measures["novelty"]["nearest"]) == {
        "reader",
        "discriminator",
    }
    designs = client.get(f"/sweep?{query}").json()["designs"]
    assert [round(10 * one["intensity"]) for one in designs] == list(range(11))


def test_an_export_is_drawn_again_by_the_command(client):
    png = client.get(f"/export/design.png?{SEEDS}")
    Path("e.json").write_bytes(client.get(f"/export/design.json?{SEEDS}").content)
    assert draw_command(Path("e.json"), Path("again.png")) and Path("again.png").read_bytes() == png.content
    assert "attachment" in png.headers["Content-Disposition"]
    with Image.open(io.BytesIO(client.get(f"/export/sweep.webp?{SEEDS}").content)) as motion:
        assert getattr(motion, "n_frames", 1) > 10


def test_equal_requests_are_computed_once(client, monkeypatch):
    first = client.get(f"/draw?{SEEDS}&tab=a").json()
    monkeypatch.setattr("blend.designs.session.draw_designs", None)  # nothing can be drawn from here on
    assert client.get(f"/draw?tab=b&{SEEDS}").json() == first


def test_only_the_newest_request_of_a_tab_counts():
    queue, gate = LatestOnlyQueue(), threading.Event()
    try:
        first = queue.submit("a", "draw", gate.wait)
        wait_until(lambda: not queue._waiting, "the first to be taken")
        others = [queue.submit("a", "draw", lambda k=k: k) for k in range(20)]
        measured, mine = queue.submit("a", "measure", lambda: "m"), queue.submit("b", "draw", lambda: "b")
        gate.set()
        assert first.result(5) and others[-1].result(5) == 19 and mine.result(5) == "b" and measured.result(5) == "m"
        assert all(isinstance(one.exception(5), Superseded) for one in others[:-1])
        assert (queue.superseded, queue.completed) == (19, 4)
    finally:
        queue.close()


def test_clicks_take_every_second_turn_while_tabs_drag():
    """However many pictures ten tabs request."""
    queue, gate, order = LatestOnlyQueue(), threading.Event(), []
    try:
        queue.submit("0", "draw", gate.wait)
        wait_until(lambda: not queue._waiting, "the first to be taken")

        def drag(tab: str) -> None:
            order.append("draw")
            if len(order) < 60:
                queue.submit(tab, "draw", lambda: drag(tab))

        for number in range(10):
            queue.submit(f"{number}", "draw", lambda number=number: drag(f"{number}"))
            queue.submit(f"{number}", "measure", lambda: order.append("measure"))
        queue.submit("a", "sweep", lambda: order.append("sweep"))
        kept = [queue.submit(f"alone {number}", "other", lambda: order.append("keep")) for number in range(2)]
        gate.set()
        for one in kept:
            one.result(10)
        wait_until(lambda: len(order) >= 60)
    finally:
        queue.close()
    assert order[:4] == ["keep", "draw", "keep", "draw"]
    assert order[4:26:2] == ["measure"] * 10 + ["sweep"] and set(order[5:26:2]) == {"draw"}


def test_a_full_queue_refuses(monkeypatch):
    monkeypatch.setattr(latest_only_queue, "MAX_WAITING", 2)
    queue, gate = LatestOnlyQueue(), threading.Event()
    queue.submit("a", "draw", gate.wait)
    with pytest.raises(UserError, match="too many"):
        for tab in range(4):
            queue.submit(f"{tab}", "draw", int)
    gate.set()
    queue.close()


def test_jobs_run_once_in_order_and_can_be_cancelled():
    jobs, gate, seen = Jobs(), threading.Event(), []

    def work(job: Any) -> dict[str, Any]:
        seen.append(job.key)
        gate.wait(10)
        job.report(1, 2, "half")
        return {"key": job.key}

    first, second, third = (jobs.start(key, work) for key in ("a", "b", "c"))
    assert jobs.start("b", work) is second
    wait_until(lambda: seen)
    third.cancel()
    assert third.state == "cancelled"
    first.cancel()
    gate.set()
    wait_until(lambda: second.finished)
    assert (first.state, second.state, seen) == ("cancelled", "done", ["a", "b"])
    assert jobs.start("a", work) is not first  # a cancelled one is started again
    jobs.close()


def test_tabs_take_turns_and_none_can_fill_the_queue(monkeypatch):
    monkeypatch.setattr(blend.studio.jobs, "MAX_PER_TAB", 3)
    jobs, gate, seen = Jobs(), threading.Event(), []

    def work(job: Any) -> dict[str, Any]:
        seen.append(job.key)
        gate.wait(10)
        return {}

    jobs.start("first", work)
    wait_until(lambda: seen)
    mine = [jobs.start(f"a{number}", work, tab="a") for number in range(3)]
    with pytest.raises(UserError, match="jobs: 3 are waiting already"):
        jobs.start("a3", work, tab="a")
    assert jobs.start("known", lambda job: {}, run_now=True, tab="a").state == "done"
    last = jobs.start("b0", work, tab="b")
    mine[1].cancel()
    again = jobs.start("a3", work, tab="a")  # the cancelled one has made room
    gate.set()
    wait_until(lambda: last.finished and again.finished)
    assert seen == ["first", "a0", "b0", "a2", "a3"]
    jobs.close()


def test_waiting_jobs_overtake_the_preparation():
    jobs, begun, gate = Jobs(), threading.Event(), threading.Event()

    def prepare(job: Any) -> dict[str, Any]:
        begun.set()
        gate.wait(10)
        jobs.run_waiting()
        return {"search": jobs.get("search").state}  # type: ignore[union-attr]

    long = jobs.start("prepare", prepare)
    begun.wait(10)
    assert jobs.start("known", lambda job: {}, run_now=True).state == "done"
    jobs.start("search", lambda job: {})
    gate.set()
    wait_until(lambda: long.finished)
    assert long.snapshot()["result"] == {"search": "done"}
    jobs.close()


def test_a_cancelled_search_leaves_nothing_and_starts_again(client, monkeypatch):
    reference, gate = dropped(client, 3), threading.Event()
    before = set(Path("runs/tiny").glob("inversions/*"))
    watched = blend.designs.parents.picture_errors
    monkeypatch.setattr(blend.designs.parents, "picture_errors", lambda *words: (gate.wait(10), watched(*words))[1])
    begun = client.post("/jobs/parent", json={"side": "concept", "reference": reference}).json()
    client.post(f"/jobs/{begun['key']}/cancel", json={})
    gate.set()
    assert finished(client, begun["key"])["state"] == "cancelled"
    assert set(Path("runs/tiny").glob("inversions/*.safetensors")) <= before
    assert searched(client, "concept", reference)["state"] == "done"


def test_all_requests_of_ten_dragging_tabs_are_answered(make_studio, serve):
    """The short form of `python -m blend drag`."""
    studio = make_studio()
    count = drag(serve(studio), tabs=10, requests=52)
    assert count.errors == [] and count.drawn + count.superseded == 10 * 2 * (26 + 2)
    assert len(studio.queue._waiting) == 0 and studio.queue.superseded == count.superseded


def test_keys_that_training_does_not_depend_on_may_be_overridden(make_studio):
    studio = make_studio(overrides=["blend.latent_share=0.25"])
    assert studio.session.config.blend.latent_share == 0.25
    assert "model.z_dim: found a new value" in make_studio(overrides=["model.z_dim=99"]).error


# ---- runs without some parts ----


def test_a_run_without_a_fine_tune_and_an_encoder_names_the_commands(run_folder, make_studio):
    for part in ("tiny-freezed", "tiny/encoder"):
        shutil.rmtree(f"runs/{part}")
    client = client_of(make_studio())
    page = client.get("/").text
    for command in ("make finetune RUN=tiny", "make encoder RUN=tiny"):
        assert command in page
    assert client.get("/draw?o=seed-1").json()["picture"]
    assert "make finetune" in client.get("/measure?o=seed-1").json()["missing"]
    answer = client.post("/jobs/parent", json={"side": "concept", "reference": "seed-1"})
    assert answer.status_code == 409 and "make finetune" in answer.json()["error"]
    assert "make encoder" in searched(client, "ordinary", dropped(client, 1))["error"]
    assert "make finetune" in client.get("/draw?o=seed-1&f=50").json()["error"]


STAND_IN = """import sys, time
print("[1/8] dataset: cars to learn from", file=sys.stderr, flush=True)
{}
"""


def test_without_a_run_the_page_starts_the_demo_and_opens_it(run_folder, make_studio):
    body = (
        "import os; os.rename('runs/tiny', 'runs/demo'); os.rename('runs/tiny-freezed', 'runs/demo-freezed')"
        "; p='runs/demo/config.yaml'; t=open(p).read().replace('name: tiny', 'name: demo'); open(p,'w').write(t)"
    )
    studio = make_studio("nothing", [sys.executable, "-c", STAND_IN.format(body)])
    client = client_of(studio, prepared=False)
    page = client.get("/").text
    assert "Train my own model" in page and "found no runs/nothing" in page and 'data-stage="finetune"' in page
    assert client.get("/draw?o=seed-1").status_code == 409
    client.post("/jobs/demo", json={})
    end = finished(client, "demo")
    assert end["state"] == "done" and end["result"] == {"run": "demo"}, end
    assert client.get("/draw?o=seed-1").json()["picture"] and "run <b>demo</b>" in client.get("/").text


@pytest.mark.parametrize("how", ["fails", "stopped"])
def test_a_demo_that_fails_or_is_stopped_is_reported(run_folder, make_studio, how):
    bodies = {
        "fails": "print('error: disk: full, try another', file=sys.stderr); sys.exit(2)",
        "stopped": "import signal; signal.signal(15, lambda *_: sys.exit(75)); "
        "print('ready', file=sys.stderr, flush=True); time.sleep(60)",
    }
    studio = make_studio("nothing", [sys.executable, "-c", STAND_IN.format(bodies[how])])
    client = client_of(studio, prepared=False)
    client.post("/jobs/demo", json={})
    if how == "stopped":
        wait_until(lambda: studio.jobs.get("demo").snapshot()["message"] == "ready")
        client.post("/jobs/demo/cancel", json={})
    end = finished(client, "demo")
    assert end["state"] == ("failed" if how == "fails" else "cancelled")
    assert how == "stopped" or "disk: full, try another" in end["error"]


# ---- the shelf ----


def test_kept_designs_have_notes_and_can_be_removed_and_restored(client):
    kept = client.post("/shelf", json={"recipe": SEEDS, "note": "first"}).json()
    assert client.post("/shelf", json={"recipe": SEEDS}).json()["id"] == kept["id"]
    client.post("/shelf", json={"recipe": "o=seed-1&c=seed-2&i=1"})
    client.post(f"/shelf/{kept['id']}/note", json={"note": "<b>mine</b>"})
    rows = client.get("/shelf").json()["designs"]
    assert [row["note"] for row in rows] == ["<b>mine</b>", ""] and not any(row["older"] for row in rows)
    png = client.get(f"/export/shelf/{kept['id']}.png").content
    Path("k.json").write_bytes(client.get(f"/export/shelf/{kept['id']}.json").content)
    assert draw_command(Path("k.json"), Path("k.png")) and Path("k.png").read_bytes() == png
    with Image.open(io.BytesIO(client.get("/export/shelf-sheet.png").content)) as sheet:
        assert sheet.width > 600
    assert client.post(f"/shelf/{kept['id']}/remove", json={}).status_code == 200
    assert len(client.get("/shelf").json()["designs"]) == 1 and not list(Path("runs/tiny").rglob(f"kept/{kept['id']}*"))
    for status in (200, 409):  # in its place, unchanged; then there is nothing to restore
        assert client.post(f"/shelf/{kept['id']}/restore", json={}).status_code == status
        assert client.get("/shelf").json()["designs"] == rows
        assert client.get(f"/export/shelf/{kept['id']}.png").content == png
    for path in (f"/shelf/{'0' * 16}/note", "/shelf/../../x/note", f"/shelf/{'0' * 16}/restore"):
        body = {} if path.endswith("restore") else {"note": ""}
        assert client.post(path, json=body).status_code in (404, 409)


def test_only_the_last_removed_designs_can_be_restored(tmp_path, monkeypatch):
    monkeypatch.setattr("blend.studio.shelf.MAX_REMOVED", 2)
    shelf, names = Shelf(tmp_path / "studio"), [f"{k:016x}" for k in range(4)]
    for k, name in enumerate(names):
        shelf.keep(
            np.full((8, 8, 3), k, np.uint8),
            {"picture_sha256": name * 4, "note": "", "recipe": "o=seed-1", "setting": {}, "generators": {}},
        )
    for k, name in enumerate(names):
        shelf.remove(name)
        os.utime(tmp_path / f"studio/removed/{name}.json", ns=(k + 1, k + 1))
    held = {path.name for path in (tmp_path / "studio/removed").iterdir()}
    assert held == {f"{name}.{kind}" for name in names[2:] for kind in ("json", "png")}
    with pytest.raises(UserError, match="cannot be restored"):
        shelf.restore(names[0])


def test_a_shelf_of_a_newer_version_is_not_changed(tmp_path):
    (tmp_path / "shelf.json").write_text('{"version": 2, "designs": []}')
    document = {"picture_sha256": "0" * 64, "note": "", "recipe": "o=seed-1", "setting": {}}
    with refused("shelf.json", "newer version", "format 2, allowed up to 1"):
        Shelf(tmp_path).keep(np.zeros((8, 8, 3), np.uint8), document)
    assert (tmp_path / "shelf.json").read_text() == '{"version": 2, "designs": []}'


def test_half_a_character_is_refused(client):
    spoiled = '{"recipe": "o=seed-1", "note": "\\ud800"}'
    answer = client.post("/shelf", content=spoiled, headers={"Content-Type": "application/json"})
    assert answer.status_code == 409 and "note: found half a character" in answer.json()["error"]
    assert client.get("/shelf").json() == {"designs": []}


def test_a_lost_picture_a_long_query_and_a_full_disk_are_refusals(client, monkeypatch):
    kept = client.post("/shelf", json={"recipe": SEEDS}).json()
    picture = next(Path("runs/tiny/studio/kept").glob("*.png"))
    picture.write_bytes(picture.read_bytes()[:90])
    for path in (f"/shelf/{kept['id']}.jpg", f"/export/shelf/{kept['id']}.png", "/export/shelf-sheet.png"):
        assert client.get(path).status_code == 409 and "cannot be read" in client.get(path).json()["error"]
    many = "&".join(["x=1"] * 60)
    for path in ("/draw", "/export/design.png"):
        assert client.get(f"{path}?{SEEDS}&{many}").status_code == 409
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device", "kept"))
    monkeypatch.setattr("blend.studio.shelf.atomic_write", full)
    answer = client.post("/shelf", json={"recipe": "o=seed-4"})
    assert answer.status_code == 507 and "No space left on device; no partial files are kept" in answer.json()["error"]


def test_on_a_full_disk_nothing_is_half_kept_and_designs_can_be_removed(client, monkeypatch):
    kept = client.post("/shelf", json={"recipe": SEEDS}).json()
    pictures, real = Path("runs/tiny/studio/kept"), atomic_write

    def full(path: Path, content: Any) -> None:
        if path.name == "shelf.json" and len(content) > size or path.parent.name == "removed":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, content)

    size = Path("runs/tiny/studio/shelf.json").stat().st_size
    monkeypatch.setattr("blend.studio.shelf.atomic_write", full)
    assert client.post("/shelf", json={"recipe": "o=seed-4"}).status_code == 507
    assert [path.stem for path in pictures.iterdir()] == [kept["id"]]
    assert client.post(f"/shelf/{kept['id']}/remove", json={}).status_code == 200
    assert client.get("/shelf").json() == {"designs": []} and not list(pictures.iterdir())


def test_a_run_that_was_renamed_under_an_open_studio_is_not_recreated(client):
    for change in (lambda: os.rename("runs/tiny", "runs/moved"), lambda: shutil.copytree("runs/moved", "runs/tiny")):
        change()
        if Path("runs/tiny/run.json").exists():
            Path("runs/tiny/run.json").write_text('{"id": "another"}')
        for answer in (client.get(f"/draw?tab=a&{SEEDS}"), client.post("/shelf", json={"recipe": SEEDS})):
            assert answer.status_code == 409 and "runs/tiny was replaced, renamed or removed" in answer.json()["error"]
    shutil.rmtree("runs/tiny")
    os.rename("runs/moved", "runs/tiny")
    assert client.post("/shelf", json={"recipe": SEEDS}).status_code == 200


@pytest.mark.parametrize("link", [False, True], ids=["file", "dangling link"])
def test_a_shelf_that_is_not_a_folder_is_refused(client, link):
    place = Path("runs/tiny/studio")
    shutil.rmtree(place, ignore_errors=True)
    place.symlink_to("nowhere") if link else place.touch()
    answer = client.post("/shelf", json={"recipe": SEEDS})
    assert answer.status_code == 409 and "studio is not a folder" in answer.json()["error"]


KEEPER = """
from pathlib import Path
import numpy as np
from blend.studio.shelf import Shelf
shelf = Shelf(Path("studio"))
for k in range(10**6):
    document = dict(picture_sha256=f"{k:064x}"[::-1], note=str(k), recipe="o=seed-1", setting={}, generators={})
    shelf.keep(np.full((8, 8, 3), k % 256, np.uint8), document)
    print(k, flush=True)
"""


def test_a_shelf_survives_a_kill_at_any_moment():
    newest = -1
    for moment in range(4):
        with python_at_work("-c", KEEPER) as child:
            assert child.stdout is not None
            for _ in range(3 + 2 * moment):
                newest = max(newest, int(child.stdout.readline()))
        shelf = Shelf(Path("studio"))
        notes = [int(entry["document"]["note"]) for entry in shelf.entries()]
        assert notes == list(range(len(notes))) and len(notes) > newest
        assert all(shelf.picture(entry["id"]).shape == (8, 8, 3) for entry in shelf.entries())


# ---- what is refused ----


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("../../evil.png", picture_file(1, "PNG"))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content, message",
    [
        (zipped(), "found zip, allowed JPEG, PNG, WebP, AVIF, HEIC"),
        (b"\x89PNG\r\n\x1a\n" + zipped(), "format|damaged"),
        (png_header(60_000, 60_000), "too_large"),
        (picture_file(1)[:200], "damaged|format"),
        (b"", "found empty, allowed JPEG"),
        (b"GIF89a" + bytes(100), "found gif, allowed JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "found svg, allowed JPEG"),
        (picture_file(1, "PNG", (4, 4)), "too_small"),
    ],
    ids=["zip", "zip_as_png", "bomb", "cut", "empty", "gif", "svg", "tiny"],
)
def test_unusable_uploads_are_refused_in_one_line(client, content, message):
    answer = client.post("/uploads", content=content, headers=BYTES)
    assert answer.status_code == 409 and np.any([part in answer.json()["error"] for part in message.split("|")])
    assert "\n" not in answer.json()["error"] and not list(Path("runs/tiny/studio").glob("uploads/*"))
    assert client.get(f"/draw?{SEEDS}").status_code == 200


@pytest.mark.parametrize(
    "method, path, headers, status",
    [
        ("GET", "/", {"Host": "evil.example"}, 403),
        ("GET", "/draw?" + SEEDS, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": HERE}, 200),
        ("POST", "/uploads", {**BYTES, "Origin": "http://evil.example"}, 403),
        ("POST", "/uploads", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ("POST", "/shelf", {"Content-Type": "text/plain"}, 415),
        ("POST", "/jobs/demo", {"Origin": "null", "Content-Type": "application/json"}, 403),
        ("GET", "/static/../server.py", {}, 404),
        ("GET", "/static/..%2fserver.py", {}, 404),
        ("GET", "/parent/ordinary/..%2f..%2fconfig.yaml", {}, 404),
        ("GET", "/parent/ordinary/file-" + "0" * 64, {}, 409),
        ("GET", "/parent/elsewhere/seed-1", {}, 422),
        ("GET", "/draw?o=../../../etc/passwd", {}, 409),
        ("GET", "/jobs/unknown", {}, 404),
    ],
)
def test_other_sites_and_paths_are_refused(client, method, path, headers, status):
    answer = client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
    assert answer.status_code == status
    assert status == 200 or "\n" not in answer.json()["error"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_huge_upload_is_refused_before_it_is_read(make_studio, serve):
    """With its length declared, and in chunks of unknown total length."""
    address = serve(make_studio())
    host, port = "127.0.0.1", int(address.rsplit(":", 1)[1].strip("/"))
    head = (
        f"POST /uploads HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\n"
        "Content-Type: application/octet-stream\r\n"
    )
    for how in ("Content-Length: 209715200", "Transfer-Encoding: chunked"):
        with socket.create_connection((host, port), timeout=20) as connection:
            connection.sendall(f"{head}{how}\r\n\r\n".encode())
            sent, part = 0, b"\xff" * 65536
            answer = b""
            if "Length" in how:  # refused before any of the body is sent; more would reset the connection
                connection.settimeout(20)
                answer = connection.recv(4096)
            while not answer and sent <= MAX_UPLOAD_BYTES + 2**20:
                try:
                    connection.settimeout(5)
                    connection.sendall(part if "Length" in how else f"{len(part):x}\r\n".encode() + part + b"\r\n")
                    sent += len(part)
                    connection.settimeout(0.001)
                    answer = connection.recv(4096)
                except TimeoutError:
                    continue
                except OSError:
                    break
            connection.settimeout(5)
            assert answer.startswith(b"HTTP/1.1 413 "), (how, sent, answer[:80])
    assert urllib.request.urlopen(address, timeout=20).status == 200


@pytest.mark.slow
def test_the_command_serves_stops_and_starts_again(run_folder):
    """Killed and restarted: the shelf is there; Ctrl-C ends it at once, streams and all."""
    for number, end in enumerate((signal.SIGKILL, signal.SIGINT)):
        with python_at_work("-m", "blend", "studio", "--run", "tiny") as server:
            assert server.stdout is not None
            address = server.stdout.readline().strip().rstrip("/")
            client = __import__("httpx2").Client(base_url=address, headers={"Origin": address}, timeout=60)
            assert len(client.get("/shelf").json()["designs"]) == number
            client.post("/shelf", json={"recipe": f"o=seed-{number}&c=seed-2", "note": "kept"})
            with client.stream("GET", "/jobs/prepare") as stream:
                next(stream.iter_lines())
                server.send_signal(end)
                server.communicate(timeout=60)
        assert server.returncode == (-9 if end == signal.SIGKILL else 0)
    assert len(Shelf(Path("runs/tiny/studio")).entries()) == 2


def test_an_upload_is_decoded_once(make_studio, monkeypatch):
    """A camera photo takes a second, and a dial is moved many times."""
    store, decoded = make_studio().require_session().parent_store, []
    real = blend.designs.parents.fit_content
    monkeypatch.setattr(blend.designs.parents, "fit_content", lambda *words: decoded.append(1) or real(*words))
    reference = store.keep_upload(picture_file(1))
    for _ in range(3):
        store.picture("ordinary", reference)
        store.find("concept", reference)
    assert store.keep_upload(picture_file(1)) == reference and len(decoded) == 1
