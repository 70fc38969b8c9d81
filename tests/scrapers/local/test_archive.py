"""Archives: classes and file names are read, a second import adds nothing, truncation is reported."""

import pytest

from harness.errors import Interrupted, UserError
from scrapers.local.archive import import_archive
from scrapers.local.importer import ImportOptions, Member
from tests.scrapers.local.local_set import GOOD, SEED_NAME, a_picture, tar_of, zip_of


@pytest.mark.parametrize("form", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_pictures_with_their_classes(local, tmp_path, form):
    members = [
        ("imgs_zip/imgs/audi/1.jpg", a_picture(1)),
        ("imgs_zip/imgs/audi/more/2.PNG", a_picture(2, "PNG")),
        ("imgs_zip/imgs/bmw/3.jpg", a_picture(3, "WEBP")),  # by its bytes, whatever it is called
        ("imgs_zip/imgs/bmw/again.jpg", a_picture(1)),
        ("imgs_zip/imgs/4.jpg", a_picture(4)),
        ("companies.csv", b"a,b\n1,2\n"),
        ("__MACOSX/imgs_zip/._1.jpg", b"\0\5\x16\7"),
    ]
    path = zip_of(tmp_path / form, *members) if form.endswith("zip") else None
    path = path or tar_of(tmp_path / form, *members, mode=f"w:{form.removeprefix('a.tar').lstrip('.')}")
    counts = local.take(import_archive, path)
    assert (counts.done, counts.refused) == (5, 2)
    assert len(local.files) == 4  # one file for the picture that stands twice
    assert {name: line["class"] for name, line in local.last.items() if line["status"] == "done"} == {
        "imgs_zip/imgs/audi/1.jpg": "audi",
        "imgs_zip/imgs/audi/more/2.PNG": "audi",
        "imgs_zip/imgs/bmw/3.jpg": "bmw",
        "imgs_zip/imgs/bmw/again.jpg": "bmw",
        "imgs_zip/imgs/4.jpg": None,
    }
    line = local.last["imgs_zip/imgs/bmw/3.jpg"]
    assert line["url"] == f"archive:{form}#imgs_zip/imgs/bmw/3.jpg" and line["source"] == "archive"
    assert line["content_type"] == "image/webp" and line["file"].endswith(f"{line['sha256']}.webp")
    assert local.refused == {"companies.csv": "not_a_picture", "__MACOSX/imgs_zip/._1.jpg": "ignored"}


def test_a_tar_whose_names_begin_with_a_dot_keeps_its_classes(local, tmp_path):
    names = ["./imgs/audi/1.jpg", "./imgs/audi/2.jpg", "./imgs/bmw/3.jpg"]
    local.take(import_archive, tar_of(tmp_path / "a.tar", *[(name, a_picture(k)) for k, name in enumerate(names)]))
    assert {name: line["class"] for name, line in local.last.items()} == dict(
        zip(names, ["audi", "audi", "bmw"], strict=True)
    )


def test_an_archive_is_read_as_a_folder_is(local, tmp_path, capsys):
    names = ["cars/train/audi/1.jpg", "cars/train/bmw/2.jpg", "cars/test/audi/3.jpg", "cars/rejected/4.jpg"]
    path = zip_of(tmp_path / "a.zip", *[(name, a_picture(k)) for k, name in enumerate(names)])
    local.take(import_archive, path)
    found = {name: (line["class"], line["split"]) for name, line in local.last.items() if line["status"] == "done"}
    assert found == {names[0]: ("audi", "train"), names[1]: ("bmw", "train"), names[2]: ("audi", "valid")}
    assert local.refused == {names[3]: "ignored"}
    assert "a.zip: 2 classes (audi, bmw) below cars; train, test: pooled" in capsys.readouterr().err


def test_how_an_archive_is_read_can_be_said(local, tmp_path):
    names = ["train/1.jpg", "rejected/2.jpg"]
    path = zip_of(tmp_path / "a.zip", *[(name, a_picture(k)) for k, name in enumerate(names)])
    local.take(import_archive, path, options=ImportOptions("classes", ignore=[]))
    assert {name: line["class"] for name, line in local.last.items()} == {names[0]: "train", names[1]: "rejected"}


def test_the_zip_of_a_mac_has_its_names(local, tmp_path):
    """UTF-8, decomposed, without the flag that says so."""
    name = "Citroe\u0308n/1.jpg".encode()
    path = zip_of(tmp_path / "a.zip", ("x" * len(name), a_picture(1)), ("bmw/2.jpg", a_picture(2)))
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name))
    local.take(import_archive, path)
    assert sorted(line["class"] for line in local.lines) == ["Citro\u00ebn", "bmw"]


def test_a_dump_s_file_names_are_read(local, tmp_path):
    members = [(f"pictures/{SEED_NAME}", a_picture(1)), ("pictures/other.jpg", a_picture(2))]
    local.take(import_archive, zip_of(tmp_path / "dump.zip", *members))
    found = local.last[f"pictures/{SEED_NAME}"]
    assert found["class"] == "Audi" and found["specs"]["horsepower"] == 210 and found["specs"]["drivetrain"] == "FWD"
    assert local.last["pictures/other.jpg"]["specs"] is None


def test_of_a_dump_in_folders_the_make_is_the_class_when_asked_for(local, tmp_path):
    members = [(f"exterior/{SEED_NAME}", a_picture(1)), (f"interior/{SEED_NAME}", a_picture(2))]
    local.take(import_archive, zip_of(tmp_path / "dump.zip", *members), options=ImportOptions(class_from_make=True))
    assert {line["class"] for line in local.lines} == {"Audi"}


def test_a_signal_while_an_archive_is_looked_through_ends_that(local, tmp_path, monkeypatch):
    path = tar_of(tmp_path / "a.tar", *[(f"{k}.jpg", a_picture(k)) for k in range(9)])
    read = []
    with local.pictures() as held, pytest.raises(Interrupted):

        def members():
            for k in range(9):
                read.append(k)
                held.stopping = held.stopping or k == 3
                yield Member(f"{k}.jpg", None, lambda count: a_picture(1))

        monkeypatch.setattr("scrapers.local.archive._tar_members", lambda path, limits: members())
        import_archive(path, held)
    assert read == [0, 1, 2, 3] and local.lines == []


def test_imported_again_nothing_is_added_and_other_content_of_the_same_name_is(local, tmp_path):
    path = zip_of(tmp_path / "a.zip", (GOOD, a_picture(1)), ("notes.txt", b"x"))
    local.take(import_archive, path)
    before = local.lines
    counts = local.take(import_archive, path)
    assert (counts.done, counts.skipped, counts.refused) == (0, 1, 1)
    assert local.lines == before
    local.take(import_archive, zip_of(path, (GOOD, a_picture(2))))
    assert local.take(import_archive, path).skipped == 1
    assert len(local.good) == 2 and len(local.files) == 2


def test_a_limit(local, tmp_path):
    path = zip_of(tmp_path / "a.zip", ("notes.txt", b"x"), *[(f"{k}.jpg", a_picture(k)) for k in range(9)])
    assert local.take(import_archive, path, limit=3).done == 3
    assert local.take(import_archive, path, limit=5).done == 2


@pytest.mark.parametrize("form", ["w", "w:gz", "w:xz"])
def test_a_tar_that_is_cut_short_is_taken_as_far_as_it_goes_and_told(local, tmp_path, form):
    members = [(f"{k}.jpg", a_picture(k, size=(200, 200 + k))) for k in range(30)]
    path = tar_of(tmp_path / "a.tar", *members, mode=form)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"is damaged after \d+ members"):
        local.take(import_archive, path)
    assert 0 < len(local.good) < 30 or form == "w:xz"  # xz packs in large blocks


def test_garbage_in_a_tar_is_not_taken_for_its_end(local, tmp_path):
    path = tar_of(tmp_path / "a.tar", (GOOD, a_picture(1)), ("b.jpg", a_picture(2)))
    content = bytearray(path.read_bytes())
    at = content.index(b"b.jpg")
    content[at : at + 100] = b"\x7f" * 100
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged after 1 members"):
        local.take(import_archive, path)
    assert local.good == [GOOD]


def test_a_zip_that_is_cut_short(local, tmp_path):
    path = zip_of(tmp_path / "a.zip", (GOOD, a_picture(1)))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="is neither zip nor tar"):
        local.take(import_archive, path)


def test_a_tar_with_a_zip_at_its_end_is_a_tar(local, tmp_path):
    inner = zip_of(tmp_path / "inner.zip", ("0.jpg", a_picture(1)))
    path = tar_of(tmp_path / "a.tar", (GOOD, a_picture(2)), ("inner.zip", inner.read_bytes()))
    local.take(import_archive, path)
    assert local.good == [GOOD] and local.refused == {"inner.zip": "nested_archive"}


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08 broken", b"PK\3\4 broken", a_picture(1)])
def test_no_archive(local, tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(UserError, match="^SRC: .* is (neither zip nor tar|a damaged zip) "):
        local.take(import_archive, path)
    with pytest.raises(UserError, match="SOURCE=folder"):
        local.take(import_archive, tmp_path)
