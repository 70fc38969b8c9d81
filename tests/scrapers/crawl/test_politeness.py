"""Without a valid contact nothing is fetched."""

import pytest

from harness.config.data_sources import load_sources
from harness.errors import UserError
from scrapers.crawl.politeness import make_politeness, version


def test_without_a_contact_nothing_goes():
    with pytest.raises(UserError, match="contact: found none.*CARFORGE_CONTACT.*nothing was fetched"):
        make_politeness({})


@pytest.mark.parametrize(
    "contact", ["me", "a@b", "you@your.domain", "http://", "a b@c.org", "a@b.org\r\nX: y", "ü@b.org", "<a@b.org>"]
)
def test_a_contact_must_lead_to_somebody(contact):
    with pytest.raises(UserError, match="politeness.contact: found"):
        make_politeness({}, contact)


def test_where_the_contact_comes_from(monkeypatch, tmp_path):
    assert make_politeness({"contact": "a@b.org"}).contact == "a@b.org"
    monkeypatch.setenv("CARFORGE_CONTACT", "https://b.org/us")
    assert make_politeness({"contact": "a@b.org"}).user_agent == f"carforge/{version()} (+https://b.org/us)"
    assert make_politeness({"contact": "a@b.org"}, "c@b.org").contact == "c@b.org"


def test_politeness_of_a_file(tmp_path):
    politeness = make_politeness({"per_host_rate": 0.5, "max_bytes": 4096}, "a@b.org")
    kept = (politeness.per_host_rate, politeness.max_bytes, politeness.allow_private, politeness.obey_optout)
    assert kept == (0.5, 4096, False, True)
    path = tmp_path / "sources.yaml"
    for text, message in {
        "politeness: {per_host_rat: 1}": "politeness.per_host_rat",
        "politeness: {per_host_rate: 0}": "politeness.per_host_rate",
        "politeness: [1]": "politeness: found",
        "politeness: {attempts: many}": "politeness.attempts: found 'many'",
    }.items():
        path.write_text(f"{text}\nsources: {{}}\n")
        with pytest.raises(UserError, match=message):
            make_politeness(load_sources(path).politeness, "a@b.org")
