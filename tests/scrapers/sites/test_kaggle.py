"""Kaggle data sets with a fake kagglehub: brand folders become classes, failures one line."""

import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from harness.config.data_sources import SOURCES_PATH, load_sources
from harness.errors import Interrupted, UserError
from scrapers.__main__ import run_plan
from scrapers.plan import make_plan
from scrapers.sites.kaggle import download_dataset
from tests.refusals import refused
from tests.scrapers.local.local_set import LocalSet, write_pictures

HANDLE = "yamaerenay/100-images-of-top-50-car-brands"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A kagglehub whose `dataset_download` is `hub.download`."""
    cache = tmp_path / "cache" / "versions" / "1"
    names = ("audi/audi 1.jpg", "audi/audi 2.jpg", "bmw/bmw 1.jpg", "volvo/volvo 1.jpg")
    write_pictures(cache / "imgs_zip" / "imgs", *names)
    (cache / "companies.csv").write_text("name\naudi\n")
    stand_in = SimpleNamespace(requests=[], cache=cache)

    def dataset_download(handle: str) -> str:
        stand_in.requests.append(handle)
        print("Downloading from Kaggle ...")
        return stand_in.download(handle)

    stand_in.download = lambda handle: str(cache)
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=dataset_download))
    return stand_in


def test_brand_folders_are_the_classes(hub, tmp_path, capsys):
    sources = load_sources(SOURCES_PATH)
    counts = run_plan(make_plan("kaggle", sources), sources, None)
    local = LocalSet(tmp_path / "data" / "raw" / "brands50")
    assert hub.requests == [HANDLE] and counts.done == 4
    assert [local.last[name]["class"] for name in local.good] == ["audi", "audi", "bmw", "volvo"]
    line = local.last["imgs_zip/imgs/bmw/bmw 1.jpg"]
    assert line["url"] == f"folder:{HANDLE}#imgs_zip/imgs/bmw/bmw 1.jpg" and line["source"] == "kaggle"
    assert local.refused == {"companies.csv": "not_a_picture"}
    assert capsys.readouterr().out == ""  # what kagglehub prints is no result of ours


def test_another_data_set_has_a_set_of_its_own(hub, tmp_path):
    sources = load_sources(SOURCES_PATH)
    plan = make_plan("kaggle", sources, handle="someone/other-cars/versions/2")
    assert plan.set_name == "other-cars"
    run_plan(plan, sources, None)
    assert hub.requests == ["someone/other-cars/versions/2"]
    assert (tmp_path / "data" / "raw" / "other-cars" / "ledger.jsonl").exists()


class KaggleApiHTTPError(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("HTTPSConnectionPool: Max retries exceeded\nlong\ntrace"),
        KaggleApiHTTPError("404 Client Error.\n\nResource not found at URL"),
        OSError(28, "No space left on device"),
        ValueError(""),
    ],
)
def test_a_failure_is_one_line_that_says_what_else_there_is(hub, error):
    hub.download = Mock(side_effect=error)
    with refused(HANDLE, "SOURCE=archive SRC=", type(error).__name__):
        download_dataset(HANDLE)


def test_being_stopped_is_no_failure(hub):
    hub.download = Mock(side_effect=Interrupted("stopped"))
    with pytest.raises(Interrupted):
        download_dataset(HANDLE)


def test_without_kagglehub(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(UserError, match="scrape extra: found no kagglehub.*SOURCE=archive SRC="):
        download_dataset(HANDLE)


def test_what_comes_must_be_a_folder(hub, tmp_path):
    hub.download = lambda handle: str(tmp_path / "nothing")
    with pytest.raises(UserError, match="which is not a folder"):
        download_dataset(HANDLE)
