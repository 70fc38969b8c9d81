"""The Car Connection's 16 specs of a car, from its page or from a file name of the published dump.

The dump's names (datasets/cards/car_connection.md) are rounded: thousands of dollars, tens of horsepower.
"""

import re
from collections.abc import Mapping
from typing import Any

# Our name → the site's label, in the order of the file names.
LABELS = {
    "make": "Make",
    "model": "Model",
    "year": "Year",
    "msrp_kusd": "MSRP",
    "wheel_in": "Front Wheel Size (in)",
    "horsepower": "SAE Net Horsepower @ RPM",
    "displacement_l": "Displacement",
    "cylinders": "Engine Type",
    "width_in": "Width, Max w/o mirrors (in)",
    "height_in": "Height, Overall (in)",
    "length_in": "Length, Overall (in)",
    "mileage_mpg": "Gas Mileage",
    "drivetrain": "Drivetrain",
    "seats": "Passenger Capacity",
    "doors": "Passenger Doors",
    "body_style": "Body Style",
}
FIELDS = tuple(LABELS)
NUMBERS_IN_NAME = FIELDS[3:12]
WHOLE = ("year", "horsepower", "cylinders", "seats", "doors")
# First words of two-word makes, whose space is an underscore in file names.
TWO_WORD_MAKES = ("alfa", "aston", "land", "mercedes", "rolls", "am", "range")

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_CYLINDERS = re.compile(r"(?<![A-Za-z0-9])[IVHWFL]-?(\d{1,2})(?![\d.])|(\d{1,2})[ -]?cyl", re.IGNORECASE)
_LITRES = re.compile(r"(\d+(?:\.\d+)?)\s*-?\s*L(?![a-z])", re.IGNORECASE)
_NUMBER_IN_NAME = r"(?:\d+(?:\.\d+)?|nan)"
# Greedy, so that the year is the rightmost match: make and model may contain underscores and years.
_NAME = re.compile(
    r"(?=.*_(?-i:[A-Za-z]{3})\Z)"  # first: a name without this ending would backtrack slowly
    r"(?P<make>[^_]+)_(?P<model>[^_].*)_(?P<year>(?:18|19|20)\d\d(?:\.0)?|nan)"
    + "".join(rf"_(?P<{field}>{_NUMBER_IN_NAME})" for field in NUMBERS_IN_NAME)
    + rf"_(?P<drivetrain>[A-Z0-9]WD|nan)_(?P<seats>{_NUMBER_IN_NAME})_(?P<doors>{_NUMBER_IN_NAME})"
    + r"_(?P<body_style>[^_].*)_[A-Za-z]{3}",
    re.IGNORECASE | re.DOTALL,
)

Specs = dict[str, Any]  # each of FIELDS → text, int, float or None


def specs_from_rows(rows: Mapping[str, str]) -> Specs:
    """The site's labels and texts → specs; None for missing and empty ones."""
    text = {name: " ".join(rows.get(label, "").split()) for name, label in LABELS.items()}
    city = rows.get("EPA Fuel Economy Est - City (MPG)", "")
    price = _number(text["msrp_kusd"])
    return {
        "make": text["make"] or None,
        "model": text["model"] or None,
        "year": _whole(text["year"]),
        "msrp_kusd": None if price is None else round(price / 1000, 3),
        "wheel_in": _number(text["wheel_in"]),
        "horsepower": _whole(text["horsepower"]),
        "displacement_l": _litres(text["displacement_l"]),
        "cylinders": _cylinders(text["cylinders"]),
        "width_in": _number(text["width_in"]),
        "height_in": _number(text["height_in"]),
        "length_in": _number(text["length_in"]),
        "mileage_mpg": _number(text["mileage_mpg"] or city),
        "drivetrain": _drivetrain(text["drivetrain"]),
        "seats": _whole(text["seats"]),
        "doors": _whole(text["doors"]),
        "body_style": _body_style(text["body_style"]),
    }


def specs_from_name(name: str) -> Specs | None:
    """Specs from a file name of the dump, or None for any other name."""
    stem, dot, _ = name.rpartition(".")
    found = _NAME.fullmatch(stem if dot else name)
    if not found:
        return None
    text = found.groupdict()
    second, more, model = text["model"].partition("_")
    if more and text["make"].lower() in TWO_WORD_MAKES:
        text |= {"make": f"{text['make']} {second}", "model": model}
    known = {field: None if value.lower() in ("", "nan") else value for field, value in text.items()}
    tenths = _number(text["displacement_l"])  # 2.0 litres are written as 20
    return {
        **known,
        **{field: _number(text[field]) for field in NUMBERS_IN_NAME},
        **{field: _whole(text[field]) for field in WHOLE},
        "displacement_l": None if tenths is None else round(tenths / 10, 3),
        "drivetrain": known["drivetrain"] and known["drivetrain"].upper(),
    }


def _number(text: str) -> float | None:
    """The first number in a text: `18 X 8.5` → 18.0, `$43,000` → 43000.0."""
    found = _NUMBER.search(text)
    return float(found[0].replace(",", "")) if found else None


def _whole(text: str) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _litres(text: str) -> float | None:
    """`2.0 L/121` → 2.0; a bare number below 20 counts as litres."""
    found = _LITRES.search(text)
    if found:
        return float(found[1])
    number = _number(text)
    return number if number is not None and number < 20 else None


def _cylinders(text: str) -> int | None:
    """`Turbocharged Gas I-4` → 4; None for an electric motor."""
    found = _CYLINDERS.search(text)
    return int(found[1] or found[2]) if found else None


def _drivetrain(text: str) -> str | None:
    low = text.lower()
    for words, short in ((("front", "fwd"), "FWD"), (("rear", "rwd"), "RWD"), (("all", "awd"), "AWD")):
        if any(word in low for word in words):
            return short
    return "4WD" if "four" in low or "4" in low else None


def _body_style(text: str) -> str | None:
    """The site's text in the dump's words: `2dr Car` → 2dr, `Sport Utility` → SUV, any pickup or van → Pickup, Van."""
    low = text.lower()
    for word, short in (("pickup", "Pickup"), ("van", "Van"), ("sport utility", "SUV")):
        if word in low:
            return short
    return text.removesuffix(" Car") or None
