"""Manners: who we are must be said, and nothing is fetched otherwise."""

import pytest

from harness.config.data_sources import load_sources
from harness.errors import UserError
from scrapers.crawl.politeness import make_manners, version


def test_without_a_contact_nothing_goes():
    with pytest.raises(UserError, match="contact: found none.*CARFORGE_CONTACT.*nothing was fetched"):
        make_manners({})


@pytest.mark.parametrize(
    "contact", ["me", "a@b", "you@your.domain", "http://", "a b@c.org", "a@b.org\r\nX: y", "ü@b.org", "<a@b.org>"]
)
def test_a_contact_must_lead_to_somebody(contact):
    with pytest.raises(UserError, match="manners.contact: found"):
        make_manners({}, contact)


def test_where_the_contact_comes_from(monkeypatch, tmp_path):
    assert make_manners({"contact": "a@b.org"}).contact == "a@b.org"
    monkeypatch.setenv("CARFORGE_CONTACT", "https://b.org/us")
    assert make_manners({"contact": "a@b.org"}).user_agent == f"carforge/{version()} (+https://b.org/us)"
    assert make_manners({"contact": "a@b.org"}, "c@b.org").contact == "c@b.org"


def test_manners_of_a_file(tmp_path):
    manners = make_manners({"per_host_rate": 0.5, "max_bytes": 4096}, "a@b.org")
    kept = (manners.per_host_rate, manners.max_bytes, manners.allow_private, manners.obey_optout)
    assert kept == (0.5, 4096, False, True)
    path = tmp_path / "sources.yaml"
    for text, message in {
        "manners: {per_host_rat: 1}": "manners.per_host_rat",
        "manners: {per_host_rate: 0}": "manners.per_host_rate",
        "manners: [1]": "manners: found",
        "manners: {attempts: many}": "manners.attempts: found 'many'",
    }.items():
        path.write_text(f"{text}\nsources: {{}}\n")
        with pytest.raises(UserError, match=message):
            make_manners(load_sources(path).manners, "a@b.org")
