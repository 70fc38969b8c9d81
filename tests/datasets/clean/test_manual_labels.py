"""Decisions survive writing, reading, spreadsheets and concurrent writers; bad lines are reported with their number."""

import csv
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.clean.manual_labels import (
    Decision,
    change_decisions,
    read_decisions,
    write_decisions,
)
from harness.errors import UserError
from tests.datasets.stand_in import write_decision

ROOT = Path(__file__).resolve().parents[3]
HEAD = "file,sha256,verdict,view,note\n"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def decide(name: str, verdict: str = "drop", view: str = "", note: str = "") -> Decision:
    return Decision(name, sha(name), verdict, view, note)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "sets" / "mine" / "decisions.csv"


def test_no_file_is_no_decision(path):
    assert read_decisions(path) == {}


def test_written_sorted_by_file_and_read_back(path):
    for name in ("b.jpg", "c.jpg", "a, or so.jpg"):
        write_decision(path, decide(name, view="rear_left", note='a "note", with commas'))
    assert [row.split(",")[0] for row in path.read_text().splitlines()] == ["file", '"a', "b.jpg", "c.jpg"]
    assert read_decisions(path)[sha("b.jpg")] == decide("b.jpg", view="rear_left", note='a "note", with commas')


def test_a_new_decision_replaces_the_old_one_and_can_be_deleted(path):
    write_decision(path, decide("a.jpg", "drop"))
    write_decision(path, decide("a.jpg", "keep"))
    assert read_decisions(path) == {sha("a.jpg"): decide("a.jpg", "keep")}
    change_decisions(path, {sha("a.jpg"): None, sha("never there"): None})
    assert path.read_text() == HEAD


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.binary(min_size=1, max_size=30).map(lambda name: name.decode("utf-8", "surrogateescape"))),
    note=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n\t=+-@'"), max_size=20),
)
def test_any_file_name_survives(path, names, note):
    """Commas, quotes, newlines, bytes that are not UTF-8; notes with several lines and formulas."""
    wanted = {sha(repr(name)): Decision(name, sha(repr(name)), "keep", "", note) for name in names}
    write_decisions(path, wanted.values())
    found = read_decisions(path)
    assert set(found) == set(wanted)
    for key, decision in wanted.items():
        assert found[key].note == note
        assert len(found[key].file) == len(decision.file)
        assert all(a == b or (b < " " or b == "\x7f") for a, b in zip(found[key].file, decision.file, strict=True))
    assert path.read_bytes().count(b"\n") == 1 + len(wanted) * (1 + note.count("\n"))


def test_the_last_of_two_lines_about_a_picture_counts_with_a_warning(path):
    path.parent.mkdir(parents=True)
    path.write_text(HEAD + f"a.jpg,{sha('a')},keep,,\nb.jpg,{sha('a')},drop,left,\n")
    warnings = []
    assert read_decisions(path, warnings.append)[sha("a")] == Decision("b.jpg", sha("a"), "drop", "left")
    assert len(warnings) == 1 and "line 3" in warnings[0]


@pytest.mark.parametrize(
    ("text", "number", "allowed"),
    [
        ("a.jpg,{sha},maybe,,", 2, "verdict: found 'maybe', allowed keep, drop or nothing"),
        ("a.jpg,{sha},,sideways,", 2, "view: found 'sideways', allowed left, right,"),
        ("a.jpg,12ab,drop,,", 2, "sha256: found '12ab', allowed 64 hex digits"),
        ("a.jpg,{sha},drop,,a note, with a comma", 2, "found 6 columns, allowed file,sha256,verdict,view,note"),
        ("ok.jpg,{sha},drop,,\n\na.jpg,{sha},DROP it,,", 4, "verdict: found 'drop it'"),
        ('"a.jpg,{sha},drop,,', 1, "allowed file,sha256"),
    ],
)
def test_a_bad_line_is_named_with_what_is_allowed(path, text, number, allowed):
    path.parent.mkdir(parents=True)
    path.write_text(HEAD + text.format(sha=sha("a")) + "\n")
    with pytest.raises(UserError) as caught:
        read_decisions(path)
    assert f"line {number}" in str(caught.value) and allowed in str(caught.value)


def test_all_bad_lines_are_reported_at_once(path):
    path.parent.mkdir(parents=True)
    path.write_text(HEAD + f"a,1,,,\nb,{sha('b')},keep,,\nc,{sha('c')},no,,\n")
    with pytest.raises(UserError, match=r"2 bad lines\n  line 2: .*\n  line 4: "):
        read_decisions(path)


def test_a_table_with_other_columns_is_refused(path):
    path.parent.mkdir(parents=True)
    path.write_text("file;sha256;verdict\n")
    with pytest.raises(UserError, match="line 1: found 'file,sha256,verdict', allowed file,sha256,verdict,view,note"):
        read_decisions(path)


def test_a_spreadsheet_may_have_saved_it(path):
    """Byte order mark, CRLF, capitals, columns in another order."""
    path.parent.mkdir(parents=True)
    path.write_bytes(f"\ufeffsha256,file,view,verdict,note\r\n{sha('a').upper()},a.jpg,Left,KEEP,\r\n".encode())
    assert read_decisions(path) == {sha("a"): Decision("a.jpg", sha("a"), "keep", "left")}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_delimiters_and_encodings_of_spreadsheets(path, delimiter, encoding):
    """Short rows, rows of empty cells, a `sep=` line."""
    rows = [["file", "sha256", "verdict", "view", "note"], ["a.jpg", sha("a"), "drop", "", "sch\u00f6n"]]
    rows += [["b.jpg", sha("b"), "keep"], [""] * 9, ["c.jpg", sha("c"), "keep", "", "", "", ""]]
    path.parent.mkdir(parents=True)
    text = "\r\n".join(delimiter.join(row) for row in rows)
    for head in ("", f"sep={delimiter}\r\n"):
        path.write_bytes((head + text).encode(encoding))
        found = read_decisions(path)
        assert found[sha("a")] == Decision("a.jpg", sha("a"), "drop", "", "sch\u00f6n")
        assert found[sha("b")] == Decision("b.jpg", sha("b"), "keep") and len(found) == 3


def test_bytes_that_are_not_text_are_refused(path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="found bytes that are no text"):
        read_decisions(path)


def test_no_cell_is_a_formula_and_each_is_read_back_unchanged(path):
    notes = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''-", "'quoted'", "two\nlines", "5-3"]
    wanted = {sha(note): Decision(f"={number}.jpg", sha(note), "drop", "", note) for number, note in enumerate(notes)}
    write_decisions(path, wanted.values())
    assert read_decisions(path) == wanted
    with open(path, newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t")] and "two\nlines" in cells


def test_a_bad_decision_is_never_written(path):
    write_decision(path, decide("a.jpg"))
    before = path.read_bytes()
    with pytest.raises(UserError, match="allowed keep, drop"):
        write_decision(path, decide("b.jpg", verdict="perhaps"))
    assert path.read_bytes() == before


def test_threads_lose_nothing(path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: write_decision(path, decide(f"{k:03d}.jpg")), range(60)))
    assert len(read_decisions(path)) == 60


def test_processes_lose_nothing(path):
    """As with two clinics, or a clinic and a script."""
    code = (
        "import sys; from pathlib import Path; from datasets.clean.manual_labels import Decision, change_decisions\n"
        "for sha in [f'{sys.argv[2]}{k:063d}' for k in range(25)]:\n"
        "    change_decisions(Path(sys.argv[1]), {sha: Decision('x', sha, 'drop')})"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(path), digit], cwd=ROOT) for digit in "123"]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert len(read_decisions(path)) == 75


def test_a_crash_while_writing_leaves_the_old_file(path, monkeypatch):
    write_decision(path, decide("a.jpg"))
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_decision(path, decide("b.jpg"))
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["decisions.csv"]
