"""A folder of its own for every test, no contact and no key; a site on this machine, for whatever fetches."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scrapers.faulty_site import Site
from tests.scrapers.local.local_set import LocalSet


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARFORGE_CONTACT", "BRAVE_SEARCH_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def local(tmp_path: Path) -> LocalSet:
    """A set to import into, in a folder of its own; nothing beside it may change."""
    (tmp_path / "work").mkdir()
    return LocalSet(tmp_path / "work" / "set")
