"""The usual folder layouts are recognised; litter and explicit layouts."""

import pytest

from harness.errors import UserError
from harness.images.layout import FolderCounts, Layout, LayoutName, Place, read_layout


def layout_of(*names: str, kind: LayoutName = "auto", ignore: list[str] | None = None) -> Layout:
    counts = FolderCounts(ignore)
    for name in names:
        counts.add(name)
    return read_layout(counts, kind)


def classes_of(*names: str, kind: LayoutName = "auto", ignore: list[str] | None = None) -> list[str | None]:
    layout = layout_of(*names, kind=kind, ignore=ignore)
    return [layout.place(name).class_name for name in names]


@pytest.mark.parametrize(
    "names, classes",
    [
        (["a.jpg", "b.jpg"], [None, None]),
        (["audi/1.jpg", "bmw/2010/2.jpg"], ["audi", "bmw"]),
        (["download/v3/audi/1.jpg", "download/v3/bmw/2.jpg"], ["audi", "bmw"]),
        (["./cars/audi/1.jpg", "./cars/bmw/2.jpg"], ["audi", "bmw"]),
        (["train/audi/1.jpg", "train/bmw/2.jpg", "test/audi/3.jpg"], ["audi", "bmw", "audi"]),
        (["d/Train/audi/1.jpg", "d/Val/bmw/2.jpg"], ["audi", "bmw"]),
        (["train/audi/1.jpg", "train/bmw/2.jpg"], ["audi", "bmw"]),
        (["cars_train/cars_train/1.jpg", "cars_test/cars_test/2.jpg", "devkit/meta.mat"], [None, None, None]),
        (["car_data/train/audi/1.jpg", "car_data/test/bmw/2.jpg", "names.csv"], ["audi", "bmw", None]),
        (["audi/train/1.jpg", "audi/test/2.jpg", "bmw/train/3.jpg"], ["audi", "audi", "bmw"]),
        (["bus station/1.jpg", "train station/2.jpg", "test drive/3.jpg"], None),
        (["audi/1.jpg", "train/2.jpg", "test/3.jpg"], None),
        (["audi/1", "bmw/2"], ["audi", "bmw"]),
        (["audi/1.JPG", "bmw/2.jpg", "tables/a.mat"], ["audi", "bmw", None]),
    ],
)
def test_the_usual_layouts(names: list[str], classes: list[str | None] | None):
    """None: every outermost folder is a class."""
    assert classes_of(*names) == (classes or [name.partition("/")[0] for name in names])


def test_splits_are_noted_wherever_they_stand():
    for names in (
        ["train/audi/1.jpg", "valid/audi/2.jpg", "test/bmw/3.jpg"],
        ["audi/train/1.jpg", "audi/valid/2.jpg", "bmw/test/3.jpg"],
    ):
        layout = layout_of(*names, kind="split")
        assert [layout.place(name).split for name in names] == ["train", "valid", "valid"]
    assert layout_of("train/1.jpg", "test/2.jpg").place("test/2.jpg") == Place(split="valid")


def test_what_a_person_says_goes_first():
    names = ["train/audi/1.jpg", "test/audi/2.jpg"]
    assert classes_of(*names, kind="classes") == ["train", "test"]
    assert classes_of("audi/1.jpg", "bmw/2.jpg", kind="flat") == [None, None]
    with pytest.raises(UserError, match="^data.layout: found split, but audi, bmw; .* try auto$"):
        layout_of("audi/1.jpg", "bmw/2.jpg", kind="split")


def test_litter_is_left_out_unless_it_is_asked_for():
    names = ["audi/1.jpg", "bmw/2.jpg", "@eaDir/audi/1.jpg", "bmw/Thumbs.db", "Rejected/3.jpg", "audi/.trash/4.jpg"]
    layout = layout_of(*names)
    assert [layout.place(name).problem is None for name in names] == [True, True, False, False, False, False]
    assert layout.classes == {"audi", "bmw"} and layout.counts.litter["@eaDir"] == 1
    mine = layout_of(*names, ignore=["bm?"])
    assert mine.classes == {"audi", "@eaDir", "Rejected"} and mine.place("bmw/2.jpg").problem
    assert mine.place("audi/.trash/4.jpg").problem, "what is hidden is never taken"


def test_one_class_is_called_after_the_folder_around_it():
    assert layout_of("saab/1.jpg", "saab/2.jpg").one_class == "saab"
    assert layout_of("1.jpg").one_class is None and layout_of("train/1.jpg").one_class is None
