"""Parsing a class choice: what is accepted, and what is refused in one line."""

import os
import re

import pytest

from harness.config.class_choice import Choice, text_to_choice, to_class_name, to_class_names
from harness.errors import UserError
from tests.refusals import refusal_of

NAMES = ["audi", "bmw", "porsche", "3", "random"]


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("bmw", Choice("mix", ((1, 1.0),))),
        ("2", Choice("mix", ((2, 1.0),))),
        ("3", Choice("mix", ((3, 1.0),))),
        ("random", Choice("mix", ((4, 1.0),))),
        ("all", Choice("all")),
        ("audi:0.6,porsche:0.4", Choice("mix", ((0, 0.6), (2, 0.4)))),
        ("porsche:1, 0:3", Choice("mix", ((2, 0.25), (0, 0.75)))),
        ("audi:7", Choice("mix", ((0, 1.0),))),
    ],
)
def test_what_is_understood(text, choice):
    found = text_to_choice(text, NAMES)
    assert found.kind == choice.kind and [n for n, _ in found.mix] == [n for n, _ in choice.mix]
    assert [share for _, share in found.mix] == pytest.approx([share for _, share in choice.mix])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "opel",
            r"BRAND: found 'opel', allowed audi, bmw, porsche, 3, random, a number from 0 to 4, random, all, or a ",
        ),
        ("5", "found '5', allowed"),
        ("-1", "found '-1', allowed"),
        ("audi:0.6,opel:0.4", "found 'opel' in 'audi:0.6,opel:0.4', allowed"),
        ("audi:0.6,audi:0.4", "found 'audi' twice"),
        ("audi:0.6,0:0.4", "found '0' twice"),
        ("audi:0,bmw:1", "found 'audi:0' in .*, allowed name:share with a share above 0"),
        ("audi:nan,bmw:1", "found 'audi:nan'"),
        ("audi:inf,bmw:1", "found 'audi:inf'"),
        ("audi,bmw", "found '.*' in 'audi,bmw', allowed"),
        ("", "found '', allowed"),
    ],
)
def test_what_is_not_is_told_in_one_line(text, message):
    assert re.search(message, refusal_of(text_to_choice, text, NAMES))


def test_without_classes_only_random_is_left():
    assert text_to_choice("random", []) == Choice("random")
    with pytest.raises(UserError, match="BRAND: found 'audi', allowed none"):
        text_to_choice("audi", [])


def test_a_label_is_a_class_or_the_shares_of_all():
    assert text_to_choice("bmw:2", NAMES).label(5) == 1
    assert text_to_choice("bmw:1,audi:1", NAMES).label(5) == (0.5, 0.5, 0.0, 0.0, 0.0)
    with pytest.raises(UserError, match="label: found 'all'"):
        text_to_choice("all", NAMES, "label", keywords=())


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"audi", "audi"),
        ("Citroe\u0308n".encode(), "Citro\u00ebn"),
        (b"Citro\xebn", "Citro\u00ebn"),
        (b"\x81", "\\x81"),
        ("車".encode(), "車"),
        (b"a\nb\0", "a\\x0ab\\x00"),
    ],
)
def test_a_class_has_one_name_whatever_its_folder_s_bytes(raw, name):
    assert to_class_name(os.fsdecode(raw)) == name
    assert to_class_name(name) == name and name.encode()


def test_a_half_of_a_pair_is_escaped():
    assert to_class_name("\ud800") == "\\ud800"


def test_older_names_that_become_alike_stay_apart():
    assert to_class_names(["Citroe\u0308n", "Citro\u00ebn", "bmw"]) == ["Citro\u00ebn", "Citro\u00ebn (2)", "bmw"]


def test_a_name_is_found_however_it_is_typed():
    for typed in ("Citroe\u0308n", "Citro\u00ebn", "Citro\udcebn", "Citroe\u0308n:2,audi:1"):
        assert text_to_choice(typed, ["audi", "Citroe\u0308n"]).mix[0][0] == 1
