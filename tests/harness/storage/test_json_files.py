"""JSON files: a missing file is distinguished from a damaged one."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from harness.storage.json_files import read_json, read_json_lines, read_json_or_none, to_json
from tests.refusals import refusal_of

DAMAGED = [b'{"a": ', b"", b"[1]", b"3", b"null", b"\x00\xff", b"9" * 5000, b"[" * 100_000]
DAMAGED += [b'{"a": ' * 900 + b"1" + b"}" * 900, b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}"]


def test_a_file_that_is_there_or_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_json(path) is None and read_json_or_none(path) is None and list(read_json_lines(path)) == []
    path.write_text('{"a": [1, "ü"]}\n', encoding="utf-8")
    assert read_json(path) == read_json_or_none(path) == {"a": [1, "ü"]}


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_one_line_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert re.search(r"a.json: is damaged \(.*\); ask somebody$", refusal_of(read_json, path, "ask somebody"))
    assert read_json_or_none(path) is None


def test_a_pipe_or_device_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("a.json", "zero.json"):
        assert re.search(r"cannot be read \(it is a pipe, socket or device", refusal_of(read_json, tmp_path / name))
        assert read_json_or_none(tmp_path / name) is None


def test_types_are_those_that_are_asked_for(tmp_path: Path) -> None:
    path, form = tmp_path / "a.json", TypeAdapter(dict[str, int])
    path.write_text('{"a": 1}')
    assert read_json(path, schema=form) == {"a": 1}
    path.write_text('{"a": "1"}')
    assert refusal_of(read_json, path, "mend it", form) == (
        f"{path}: is damaged (a: found '1', allowed a valid integer); mend it"
    )
    assert read_json_or_none(path, form) is None


def test_a_folder_in_its_place_cannot_be_read(tmp_path: Path) -> None:
    assert re.search("cannot be read .*directory.*; move it away", refusal_of(read_json, tmp_path))


def test_damaged_lines_stand_in_their_places(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"\n".join(DAMAGED) + b'\n{"a": "\xe2\x80\xa8"}\n{"a"')
    assert list(read_json_lines(path)) == [{"a": 1}, *[None] * len(DAMAGED), {"a": "\u2028"}, None]


def test_what_is_no_number_in_json_is_null() -> None:
    value = {"a": [float("nan"), np.float32("inf"), 1.5], Path("b"): np.int64(3), "c": (Path("d/e"), True, None)}
    assert json.loads(to_json(value)) == {"a": [None, None, 1.5], "b": 3, "c": ["d/e", True, None]}
