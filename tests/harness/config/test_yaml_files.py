"""Hostile and odd YAML is refused in one clear line."""

from pathlib import Path

import pytest

from harness.config.experiment import load_config
from tests.harness.tiny_runs import BASE
from tests.refusals import refusal_of

TRICKS = {
    "empty": b"",
    "only a comment": b"# nothing\n",
    "a list": b"- 1\n- 2\n",
    "a word": b"hello\n",
    "binary": bytes(range(256)),
    "utf-16": "extends: base.yaml\n".encode("utf-16"),
    "null byte": b"name: a\x00b\n",
    "tab": b"optim:\n\tg_lr: 1\n",
    "open bracket": b"data: {set: cars\n",
    "python object": b"name: !!python/object/apply:os.system ['touch pwned']\n",
    "python name": b"name: !!python/name:os.system\n",
    "unknown tag": b"name: !thing x\n",
    "alias": b"a: &x 1\nname: *x\n",
    "alias bomb": b"a: &a [1,1]\n" + b"".join(b"b%d: &b%d [*a,*a]\n" % (k, k) for k in range(10)),
    "repeated key": b"optim: {g_lr: 1.0e-4, g_lr: 1.0e-3}\n",
    "deep flow": b"a: " + b"[" * 3000 + b"]" * 3000,
    "deep mapping": b"a: " + b"{a: " * 2000 + b"1" + b"}" * 2000,
    "huge number": b"seed: " + b"9" * 6000 + b"\n",
    "no such date": b"name: 2024-13-45\n",
    "a tag that does not fit": b"seed: !!timestamp 5\n",
    "mapping as key": b"{a: 1}: 2\n",
    "list as key": b"[1, 2]: 2\n",
    "two documents": b"name: a\n---\nname: b\n",
    "too large": b"# " + b"x" * 1_000_100,
    "itself": b"extends: x.yaml\n",
    "nobody": b"extends: nobody.yaml\n",
    "list of parents": b"extends: [a, b]\n",
}


@pytest.mark.parametrize("content", TRICKS.values(), ids=TRICKS.keys())
def test_bad_yaml_is_one_clear_line(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    text = refusal_of(load_config, path)
    assert str(path) in text and len(text) < 400
    assert list(tmp_path.iterdir()) == [path], "nothing in it was executed"


@pytest.mark.parametrize("value", ["[1, 2", "!!python/name:os.system", "*x", "{a: 1, a: 2}", "[" * 3000])
def test_bad_yaml_after_set_is_one_clear_line(value: str):
    assert refusal_of(load_config, BASE, [f"optim.g_lr={value}"]).startswith("--set optim.g_lr: ")


NUMBERS = [("010", "10 or 8"), ("0x10", "16"), ("0b11", "3"), ("1:30", "90"), ("1:30.5", "90.5"), ("-017", "-15")]
NUMBERS += [("0_10", "8"), ("00", "0")]


@pytest.mark.parametrize("text, tries", NUMBERS)
def test_a_number_that_yaml_reads_otherwise_than_people_is_refused(text: str, tries: str, tmp_path: Path):
    (tmp_path / "x.yaml").write_text(f"extends: {BASE}\nseed: 1\noptim: {{total_steps: {text}}}\n")
    for found in (refusal_of(load_config, tmp_path / "x.yaml"), refusal_of(load_config, BASE, [f"seed={text}"])):
        assert f"found {text}, which YAML reads as" in found and f"try {tries} or '{text}' where it is text" in found
    assert "line 3" in refusal_of(load_config, tmp_path / "x.yaml")


def test_numbers_that_are_read_as_people_do_are_taken():
    numbers = {"0": 0, "10": 10, "1_000": 1000, "+5": 5}
    assert {text: load_config(BASE, [f"seed={text}"]).seed for text in numbers} == numbers
    rates = {"1e-4": 1e-4, "0.5": 0.5, ".5": 0.5, "1.0e-3": 1e-3, "00.5": 0.5}
    assert {text: load_config(BASE, [f"optim.g_lr={text}"]).optim.g_lr for text in rates} == rates
    assert load_config(BASE, ["name='010'"]).name == load_config(BASE, ["name=010"]).name == "010"


@pytest.mark.parametrize("text", ["optim.g_lr", "=3", "optim..g_lr=3", ".g_lr=3", ""])
def test_set_without_key_or_value_is_refused(text: str):
    assert "--set: found" in refusal_of(load_config, BASE, [text])


def test_missing_files_and_folders_are_one_line(tmp_path: Path):
    for path in (tmp_path / "no.yaml", tmp_path):
        assert f"cannot read {path}" in refusal_of(load_config, path)
