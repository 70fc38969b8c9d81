"""A site on this machine, for whatever fetches."""

from collections.abc import Iterator

import pytest

from tests.scrapers.faulty_site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running
