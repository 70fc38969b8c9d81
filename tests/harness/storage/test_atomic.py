"""Files and folders exist completely or not at all, at whichever operation the process fails or dies."""

import errno
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from harness.storage.atomic import atomic_file, atomic_folder, atomic_write, clean_leftovers, remove_folder
from tests.harness.sabotage import Saboteur, die, fail_with, in_a_fork, write_half_and_die

OLD, NEW = b"old" * 1000, b"new" * 1_000_000  # three writes of at most 1 MiB


def save_file(folder: Path) -> None:
    atomic_write(folder / "kept", NEW)


def save_folder(folder: Path) -> None:
    """As a checkpoint is saved: the new one appears, then the old one goes."""
    with atomic_folder(folder / "new") as temp:
        with atomic_file(temp / "a") as stream:
            stream.write(NEW)
        (temp / "deep").mkdir()
        (temp / "deep" / "b").write_bytes(NEW)
    remove_folder(folder / "old")


def prepare(folder: Path, save: Callable) -> None:
    folder.mkdir(parents=True)
    if save is save_file:
        (folder / "kept").write_bytes(OLD)
    else:
        (folder / "old" / "deep").mkdir(parents=True)
        for name in ("a", "deep/b"):
            (folder / "old" / name).write_bytes(OLD)


def whole(folder: Path, save: Callable) -> set[bytes]:
    """What is there under its final name, checked to be whole."""
    if save is save_file:
        content = (folder / "kept").read_bytes()
        assert content in (OLD, NEW), "neither the old nor the new content"
        return {content}
    found = set()
    for name, content in (("old", OLD), ("new", NEW)):
        if (folder / name).exists():
            assert (folder / name / "a").read_bytes() == (folder / name / "deep" / "b").read_bytes() == content
            found.add(content)
    return found


@pytest.mark.parametrize("save", [save_file, save_folder])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_an_error_at_any_operation_keeps_old_or_new(save: Callable, number: int, tmp_path: Path):
    for at in range(1, 100):
        folder = tmp_path / str(at)
        prepare(folder, save)
        with pytest.MonkeyPatch.context() as patch:
            saboteur = Saboteur(patch, at, fail_with(number))
            failed = False
            try:
                save(folder)
            except OSError as error:
                assert error.errno == number
                failed = True
            renamed = {"replace", "rename"} & set(saboteur.done)
        found = whole(folder, save)
        if failed and not renamed:
            assert found == {OLD}
            assert not list(folder.glob(".tmp-*")), "the temporary file stayed"
        assert found, "nothing is left"
        if saboteur.count < at:
            assert found == {NEW} and not failed
            break
    assert at > 6, "the operations were not reached through os"


@pytest.mark.parametrize("save", [save_file, save_folder])
@pytest.mark.parametrize("act", [die, write_half_and_die])
def test_a_kill_at_any_operation_keeps_old_or_new(save: Callable, act: Callable, tmp_path: Path):
    for at in range(1, 100):
        folder = tmp_path / str(at)
        prepare(folder, save)
        code = in_a_fork(lambda at=at: Saboteur(pytest.MonkeyPatch(), at, act), partial(save, folder))
        assert whole(folder, save), "nothing is left"
        for leftover in clean_leftovers(folder):
            assert leftover.name.startswith(".tmp-")
        assert not [path for path in folder.iterdir() if path.name not in ("kept", "old", "new")]
        if code == 0:
            assert whole(folder, save) == {NEW}
            break
        assert code == -signal.SIGKILL
    assert at > 6


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "x") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "y") as temp:
        (temp / "a").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_atomic_folder_never_takes_an_existing_place(tmp_path: Path):
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "there"):
        pass
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "late"):
        (tmp_path / "late").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late", "there"]


def test_everything_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "old").mkdir()
    saboteur = Saboteur(monkeypatch, -1, die)
    save_folder(tmp_path)
    before, after = saboteur.done[: saboteur.done.index("rename")], saboteur.done[saboteur.done.index("rename") :]
    assert before.count("fsync") >= 2 + 2 + 2, "two files, two folders, and the file that was written atomically"
    assert "fsync" in after, "the folder that holds the new name"


def test_clean_leftovers_takes_only_what_a_kill_leaves(tmp_path: Path):
    (tmp_path / ".tmp-1-x").mkdir()
    (tmp_path / ".tmp-1-x" / "a").write_text("a")
    for name in (".tmp-2-y", "z.hdf5.partial", "keep", ".keep", "partial"):
        (tmp_path / name).write_text("a")
    assert [path.name for path in clean_leftovers(tmp_path)] == [".tmp-1-x", ".tmp-2-y", "z.hdf5.partial"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".keep", "keep", "partial"]


def test_long_and_odd_names_can_be_written(tmp_path: Path):
    for name in ("a" * 255, "ü" * 127, "x y"):
        atomic_write(tmp_path / name, "text ü")
        assert (tmp_path / name).read_text(encoding="utf-8") == "text ü"
