"""The clinic over HTTP: sheets, choices, rebuilds, and refusal of other sites."""

import hashlib
import json
import re
import shutil
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from tests.commands import python_at_work, wait_until
from tests.datasets.clinic_set import DECISIONS, draw, line, write_set
from tests.datasets.stand_in import BASE, make_config, read_manifest, write_decision

pytest.importorskip("fastapi", reason="needs the ui extra: pip install fastapi uvicorn")
from starlette.testclient import TestClient

from datasets.clean.manual_labels import Decision, read_decisions
from datasets.clinic.command import clinic_command, open_session, set_by_config, set_by_name
from datasets.clinic.server import make_app
from datasets.clinic.session import Session
from datasets.clinic.sheets import PAGE_CARDS
from datasets.pack.recipe import SetPlan
from harness.errors import UserError

HERE = "http://127.0.0.1:8123"
HOSTILE = '"><img src=x onerror=alert(1)>\udcfe.jpg'


def lines_of_a_set() -> list[dict[str, Any]]:
    """Sixty kept pictures, some dropped ones, a group of copies, one that cannot be shown."""
    views = ("left", "front_left", "rear_right")
    lines = [
        line(f"good/{k:02d}.jpg", view=views[k % 3], view_confidence=0.4 + k / 200, ok_score=0.6 + k / 200)
        for k in range(60)
    ]
    lines += [line(f"logo/{k}.jpg", reason="logo: a badge", ok_score=round(0.49 - k / 100, 4)) for k in range(5)]
    lines += [line(HOSTILE, reason="blank: one colour", decided_by="rule", source="commons")]
    copied = {"decided_by": "rule", "duplicate_of": "good/07.jpg"}
    lines += [line(f"copy/{k}.jpg", reason="near_duplicate: 2 bits", **copied) for k in range(2)]
    lines += [line("cut.jpg", reason="damaged: truncated", decided_by="rule", ok_score=0.0, width=None, height=None)]
    return lines


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The set, made once; each test has a copy."""
    folder, lines = tmp_path_factory.mktemp("made"), lines_of_a_set()
    with chdir(folder):
        write_set(make_config(), lines, {one["file"]: draw(k) for k, one in enumerate(lines)})
    return folder


@pytest.fixture
def session(made, in_tmp_path) -> Session:
    shutil.copytree(made, ".", dirs_exist_ok=True)
    return open_session(make_config(), ["true"])


@pytest.fixture
def client(session) -> TestClient:
    return TestClient(make_app(session), base_url=HERE, headers={"Origin": HERE}, raise_server_exceptions=True)


def sha_of(file: str) -> str:
    return hashlib.sha256(Path("photos", file).read_bytes()).hexdigest()


def shown(html: str) -> list[str]:
    """Files of a page in their order."""
    return re.findall(r'data-file="([^"]*)"', html)


def decided() -> dict[str, Decision]:
    return read_decisions(DECISIONS)


# ---- sheets ----


def test_borderline_starts_with_the_least_certain(client):
    files = shown(client.get("/").text)
    assert files[:4] == ["logo/0.jpg", "good/00.jpg", "logo/1.jpg", "good/01.jpg"]
    assert len(files) == PAGE_CARDS


def test_every_picture_is_on_one_sheet(client):
    """Dropped, kept and copies together hold the whole manifest, over all their pages."""
    seen: list[str] = []
    for sheet in ("dropped", "kept", "copies"):
        for page in range(1, 4):
            html = client.get("/", params={"sheet": sheet, "page": page}).text
            if f"page {page} of" in html or page == 1:
                seen += [file for file in shown(html) if not (sheet == "copies" and file.startswith("good"))]
    assert len(seen) == len(set(seen)) == len(lines_of_a_set())


def test_sheets_by_reason_and_by_view(client):
    assert shown(client.get("/?sheet=dropped&only=logo").text) == [f"logo/{k}.jpg" for k in range(5)]
    left = shown(client.get("/?sheet=kept&only=left").text)
    assert left == [f"good/{k:02d}.jpg" for k in range(0, 60, 3)]
    html = client.get("/?sheet=kept").text
    assert re.search(r"front left <span>20</span>", html) and 'href="/?sheet=kept&amp;only=rear_right' in html


def test_copies_follow_the_one_that_counts(client):
    assert shown(client.get("/?sheet=copies").text) == ["good/07.jpg", "copy/0.jpg", "copy/1.jpg"]


def test_filters(client):
    assert len(shown(client.get("/?sheet=dropped&source=commons").text)) == 1
    assert shown(client.get("/?sheet=dropped&class=never").text) == []


def test_a_page_beyond_the_last_is_the_last(client):
    assert len(shown(client.get("/?sheet=kept&page=99").text)) == 12
    assert len(shown(client.get("/?sheet=kept&page=-5").text)) == PAGE_CARDS


def test_hostile_names_stay_text(client):
    html = client.get("/?sheet=dropped&only=blank").text
    assert "<img src=x" not in html and "&lt;img src=x onerror" in html and "\\udcfe" in html


def test_a_picture_is_a_small_jpeg(client):
    answer = client.get(f"/picture/{sha_of('good/03.jpg')}/small")
    assert answer.headers["content-type"] == "image/jpeg" and answer.content[:3] == b"\xff\xd8\xff"
    assert "immutable" in answer.headers["cache-control"]


def test_undecoded_and_changed_files_are_not_shown(client):
    assert client.get(f"/picture/{sha_of('cut.jpg')}/small").status_code == 404
    sha = sha_of("good/03.jpg")
    Path("photos/good/03.jpg").write_bytes(draw(999))
    answer = client.get(f"/picture/{sha}/small")
    assert answer.status_code == 404 and "not the one that the build read" in answer.json()["error"]
    Path("photos/good/03.jpg").unlink()
    assert client.get(f"/picture/{sha}/small").status_code == 404


# ---- choices ----


def choose(client: TestClient, file: str, **reply: Any) -> dict[str, Any]:
    answer = client.post("/choices", json={"sha256": sha_of(file), **reply})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_choice_is_saved_at_once(client):
    reply = choose(client, "good/01.jpg", verdict="drop")
    assert reply["before"] == {"verdict": "", "view": ""} and (reply["choices"], reply["waiting"]) == (1, 1)
    assert decided() == {sha_of("good/01.jpg"): Decision("good/01.jpg", sha_of("good/01.jpg"), "drop")}
    html = client.get("/?sheet=kept&only=front_left").text
    assert re.search(r'data-verdict="drop" data-view="" data-file="good/01.jpg"', html)
    assert shown(client.get("/?sheet=mine").text) == ["good/01.jpg"]


def test_verdict_and_view_do_not_overwrite_each_other(client):
    choose(client, "good/01.jpg", view="rear")
    choose(client, "good/01.jpg", verdict="keep")
    assert (decided()[sha_of("good/01.jpg")].verdict, decided()[sha_of("good/01.jpg")].view) == ("keep", "rear")


def test_deleting_a_choice_removes_its_line(client):
    before = choose(client, "good/01.jpg", verdict="drop", view="left")["before"]
    reply = choose(client, "good/01.jpg", **before, expect={"verdict": "drop", "view": "left"})
    assert decided() == {} and (reply["choices"], reply["waiting"]) == (0, 0)


def test_undo_after_another_tabs_change_is_refused(client):
    choose(client, "good/01.jpg", verdict="drop")
    choose(client, "good/01.jpg", verdict="keep")  # the other tab
    body = {"sha256": sha_of("good/01.jpg"), "verdict": "", "view": "", "expect": {"verdict": "drop", "view": ""}}
    assert client.post("/choices", json=body).status_code == 409
    assert decided()[sha_of("good/01.jpg")].verdict == "keep"


def test_concurrent_writers_lose_nothing(client):
    """Many requests at once, and lines written by another program."""
    files = [f"good/{k:02d}.jpg" for k in range(40)]

    def one(k: int) -> None:
        if k % 4:
            choose(client, files[k], verdict="drop")
        else:
            write_decision(DECISIONS, Decision(files[k], sha_of(files[k]), "keep", "", "by hand"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(40)))
    assert {one.file for one in decided().values()} == set(files)


def test_notes_are_kept(client):
    write_decision(DECISIONS, Decision("good/01.jpg", sha_of("good/01.jpg"), "keep", "", "a rare one"))
    choose(client, "good/01.jpg", verdict="drop")
    assert decided()[sha_of("good/01.jpg")].note == "a rare one"


def test_a_damaged_table_is_reported_and_kept(client):
    DECISIONS.write_text("file,sha256,verdict,view,note\nx,12,drop,,\n")
    answer = client.post("/choices", json={"sha256": sha_of("good/01.jpg"), "verdict": "drop"})
    assert answer.status_code == 409 and "line 2: sha256" in answer.json()["error"]
    assert DECISIONS.read_text().endswith("x,12,drop,,\n")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"sha256": "0" * 64, "verdict": "drop"}, 404, "no picture of this set"),
        ({"sha256": "../../etc/passwd", "verdict": "drop"}, 422, "64 hex digits"),
        ({"sha256": None, "verdict": "drop"}, 422, "sha256"),
        ({"verdict": "maybe"}, 422, "allowed keep, drop"),
        ({"view": "sideways"}, 422, "allowed left, right"),
        ({"view": 3}, 422, "view"),
        ({"file": "x.jpg", "verdict": "drop"}, 422, "file"),
        ({"verdict": "drop", "expect": "x"}, 422, "expect"),
    ],
)
def test_bad_choices_are_refused(client, body, status, text):
    answer = client.post("/choices", json={"sha256": sha_of("good/01.jpg"), **body})
    assert answer.status_code == status and text in answer.json()["error"]
    assert decided() == {}


# ---- refusals ----


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8123", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "localhost.", "0"],
)
def test_other_host_names_are_refused(session, host):
    """DNS rebinding: a foreign name that resolves to this machine."""
    client = TestClient(make_app(session), base_url=HERE)
    for path in ("/", "/status", f"/picture/{sha_of('good/01.jpg')}/small"):
        for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 403 and "mine" not in answer.text
    reply = {"sha256": sha_of("good/01.jpg"), "verdict": "drop"}
    answer = client.post("/choices", json=reply, headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == 403 and decided() == {}


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost:9", "[::1]:80", "127.0.0.1"])
def test_loopback_names_are_answered(client, host):
    assert client.get("/", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


ORIGINS = [
    "http://evil.example",
    "null",
    "https://127.0.0.1:8123",
    "http://127.0.0.1:9999",
    "http://localhost:8123",
    "",
]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("path", ["/choices", "/rebuild"])
def test_other_sites_change_nothing(client, session, origin, path):
    body = {"sha256": sha_of("good/01.jpg"), "verdict": "drop"} if path == "/choices" else {}
    answer = client.post(path, json=body, headers={"Origin": origin})
    assert answer.status_code == 403 and decided() == {} and session.rebuild is None


def test_without_an_origin_nothing_is_changed(session):
    client = TestClient(make_app(session), base_url=HERE)
    assert client.post("/rebuild", json={}).status_code == 403 and session.rebuild is None


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_taken(client, session, kind):
    """Forms of other sites can send these without a preflight request."""
    body = json.dumps({"sha256": sha_of("good/01.jpg"), "verdict": "drop"})
    answer = client.post("/choices", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 415 and decided() == {}


def test_large_bodies_are_not_read(client):
    body = json.dumps({"sha256": sha_of("good/01.jpg"), "verdict": "x" * 20_000})
    answer = client.post("/choices", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


TRIES = [
    "/picture/../../etc/passwd",
    "/picture/%2e%2e%2f%2e%2e%2fetc%2fpasswd/small",
    "/picture/good%2F01.jpg/small",
    "/picture/{sha}/../large.jpg",
    "/picture/{sha}/huge",
    "/picture/{sha}0/small",
    "/picture/clinic.css/small",
    "/static/../server.py",
    "/static/..%2fserver.py",
    "/static/%2e%2e/session.py",
    "/static/clinic.css%00.py",
    "/docs",
    "/openapi.json",
    "/data/sets/mine/decisions.csv",
]


@pytest.mark.parametrize("path", TRIES)
def test_no_path_leads_anywhere_else(client, path):
    assert client.get(path.replace("{sha}", sha_of("good/01.jpg"))).status_code in (404, 405)


def test_headers_allow_no_foreign_content(client):
    for path in ("/", "/static/clinic.js", f"/picture/{sha_of('good/01.jpg')}/small", "/nowhere", "/status"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    html = client.get("/").text
    assert not re.search(r"<style|style=|onclick|onload|<script>", html)


# ---- rebuild ----


def wait_for_end(client: TestClient) -> dict[str, Any]:
    wait_until(lambda: client.get("/status").json()["state"] != "running", "the end of the rebuild")
    return client.get("/status").json()


def test_a_rebuild_shows_what_changed(client, session):
    lines = read_manifest(make_config().data)
    lines[0] |= {"verdict": "drop", "reason": "person: dropped by hand", "decided_by": "person", "split": None}
    lines[1] |= {"view": "rear"}
    Path("next.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    manifest = SetPlan.of(make_config().data).manifest
    session.command = ["sh", "-c", f"echo packing mine >&2; mv next.jsonl {manifest}"]
    choose(client, "good/00.jpg", verdict="drop")
    assert client.post("/rebuild", json={}).status_code == 202
    reply = wait_for_end(client)
    assert (reply["state"], reply["build"], reply["waiting"], reply["choices"]) == ("done", 1, 0, 1)
    html = client.get("/?sheet=changed").text
    assert shown(html) == ["good/00.jpg", "good/01.jpg"] and "was: left" in html and "was: front left" in html
    assert re.search(r"<b>1</b> verdict and <b>1</b> view changed", html)


def test_a_rebuild_that_fails_says_why_and_changes_nothing(client, session):
    session.command = ["sh", "-c", "echo 'error: data.src: none of 69 files' >&2; echo '  can be used' >&2; exit 2"]
    client.post("/rebuild", json={})
    reply = wait_for_end(client)
    assert (reply["state"], reply["build"]) == ("failed", 0)
    assert reply["error"] == "data.src: none of 69 files\n  can be used"
    assert client.get("/").status_code == 200


def test_one_rebuild_at_a_time_and_none_is_left_behind(client, session):
    session.command = ["sleep", "60"]
    assert client.post("/rebuild", json={}).status_code == 202
    assert client.post("/rebuild", json={}).status_code == 409
    choose(client, "good/02.jpg", verdict="drop")  # choices are still accepted
    assert session.rebuild is not None
    session.close()
    session.rebuild.wait(10)
    assert not session.rebuild.running and session.built.number == 0


def test_while_the_manifest_is_replaced_the_old_one_is_shown(client, session):
    """The set on disk is new, but the clinic has not loaded it yet."""
    Path("new").write_text('{"short": 1}\n')
    Path("new").replace(SetPlan.of(make_config().data).manifest)
    assert client.get("/?sheet=kept").status_code == 200
    assert client.get(f"/picture/{sha_of('good/50.jpg')}/small").status_code == 200


# ---- the command ----


def test_a_missing_set_names_the_make_target(session):
    with pytest.raises(UserError, match=r"data/sets/never: found no set .* `make dataset SET=never`"):
        set_by_name("never", None, [])
    with pytest.raises(UserError, match="make dataset"):
        open_session(make_config(set="other"), ["true"])
    with pytest.raises(UserError, match="allowed a set's name or a config"):
        clinic_command()


def test_by_name_the_same_set_is_built_again(session):
    """From the summary alone."""
    config, command = set_by_name("mine", None, [])
    assert config.data.model_copy(update={"src": "photos"}) == make_config().data
    assert config.data.src is not None and Path(config.data.src).is_dir()
    assert "--rebuild" in command and 'data.set="mine"' in command
    assert set_by_config(BASE, ["data.set=x"], "finetune")[0].data.set == "concept"


@pytest.mark.parametrize("name", ["../mine", ".", "..", "a/b"])
def test_a_sets_name_is_not_a_path(session, name):
    with pytest.raises(UserError, match="SET: found"):
        set_by_name(name, None, [])


SERVE = """
import sys
from datasets.clinic.command import clinic_command
from harness.cli import run_command
run_command(lambda: clinic_command(sys.argv[1], None, None, "train", None, 0, False))
"""


def test_as_a_process_it_prints_its_address_and_ends_quietly(session):
    with python_at_work("-c", SERVE, "mine") as run:
        assert run.stdout is not None and run.stderr is not None
        address = run.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address), run.stderr.read()
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert b"Data clinic" in answer.read()
        run.send_signal(signal.SIGINT)
        reply = run.communicate(timeout=20)[1]
    assert run.returncode == 0 and "the clinic is closed; 0 choices" in reply and "Traceback" not in reply
