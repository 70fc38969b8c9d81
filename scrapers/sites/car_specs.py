"""The 16 facts about a car that The Car Connection gives, from its page or from the name of a picture in a dump.

The dump's names (docs: datasets/cards/car_connection.md) are coarse: whole thousands of dollars, tens of horsepower.
"""

import re
from collections.abc import Mapping
from typing import Any

# Our name → the site's label, in the order in which file names hold them.
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
# Makes of two words, for names in which the space has become an underscore.
TWO_WORD_MAKES = ("alfa", "aston", "land", "mercedes", "rolls", "am", "range")

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_CYLINDERS = re.compile(r"(?<![A-Za-z0-9])[IVHWFL]-?(\d{1,2})(?![\d.])|(\d{1,2})[ -]?cyl", re.IGNORECASE)
_LITRES = re.compile(r"(\d+(?:\.\d+)?)\s*-?\s*L(?![a-z])", re.IGNORECASE)
_IN_NAME = re.compile(r"\d+(\.\d+)?|nan", re.IGNORECASE)
_YEAR_IN_NAME = re.compile(r"(18|19|20)\d\d(\.0)?")
_DRIVETRAIN_IN_NAME = re.compile(r"[A-Z0-9]WD|nan", re.IGNORECASE)
_SUFFIX = re.compile(r"[A-Za-z]{3}")

Specs = dict[str, Any]  # each of FIELDS → text, int, float or None


def specs_from_rows(rows: Mapping[str, str]) -> Specs:
    """The site's labels with their texts → specs. What is not there, or says nothing, is None."""
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
    """Specs from a picture's name in a dump, or None when it is no such name.

    Read from the right, where every part has its shape; what is left of the year is make and model, which may hold
    spaces, dashes, dots and even underscores.
    """
    stem, dot, _ = name.rpartition(".")
    parts = (stem if dot else name).split("_")
    if len(parts) < 17 or not _SUFFIX.fullmatch(parts[-1]):
        return None
    for year_at in range(len(parts) - 15, 1, -1):  # to the left of len - 15: a body style with underscores
        if _fits(parts, year_at):
            return _read(parts, year_at)
    return None


def _fits(parts: list[str], year_at: int) -> bool:
    year, numbers = parts[year_at], parts[year_at + 1 : year_at + 10]
    drivetrain, seats, doors = parts[year_at + 10 : year_at + 13]
    return (
        bool(_YEAR_IN_NAME.fullmatch(year) or year.lower() == "nan")
        and all(_IN_NAME.fullmatch(part) for part in (*numbers, seats, doors))
        and bool(_DRIVETRAIN_IN_NAME.fullmatch(drivetrain))
        and all(parts[0:2])
        and bool(parts[year_at + 13])
    )


def _read(parts: list[str], year_at: int) -> Specs:
    split = 2 if year_at > 2 and parts[0].lower() in TWO_WORD_MAKES else 1
    specs: Specs = {
        "make": _known(" ".join(parts[:split])),
        "model": _known("_".join(parts[split:year_at])),
        "year": _whole(parts[year_at]),
    }
    specs |= {field: _number(part) for field, part in zip(NUMBERS_IN_NAME, parts[year_at + 1 :], strict=False)}
    for field in ("horsepower", "cylinders"):
        specs[field] = None if specs[field] is None else int(specs[field])
    if specs["displacement_l"] is not None:
        specs["displacement_l"] = round(specs["displacement_l"] / 10, 3)  # 2.0 litres stand as 20
    drivetrain, seats, doors = parts[year_at + 10 : year_at + 13]
    known = _known(drivetrain)
    specs |= {"drivetrain": known and known.upper(), "seats": _whole(seats), "doors": _whole(doors)}
    return specs | {"body_style": _known("_".join(parts[year_at + 13 : -1]))}


def _known(text: str) -> str | None:
    return None if not text or text.lower() == "nan" else text


def _number(text: str) -> float | None:
    """The first number in a text: `18 X 8.5` → 18.0, `$43,000` → 43000.0."""
    found = _NUMBER.search(text)
    return float(found[0].replace(",", "")) if found else None


def _whole(text: str) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _litres(text: str) -> float | None:
    """`2.0 L/121` → 2.0; a bare number counts as litres while it can be."""
    found = _LITRES.search(text)
    if found:
        return float(found[1])
    number = _number(text)
    return number if number is not None and number < 20 else None


def _cylinders(text: str) -> int | None:
    """`Turbocharged Gas I-4` → 4; an electric motor has none that could be told."""
    found = _CYLINDERS.search(text)
    return int(found[1] or found[2]) if found else None


def _drivetrain(text: str) -> str | None:
    low = text.lower()
    for words, short in ((("front", "fwd"), "FWD"), (("rear", "rwd"), "RWD"), (("all", "awd"), "AWD")):
        if any(word in low for word in words):
            return short
    return "4WD" if "four" in low or "4" in low else None


def _body_style(text: str) -> str | None:
    """The dump's words for the site's: `2dr Car` → 2dr, `Sport Utility` → SUV, any pickup or van by that word."""
    low = text.lower()
    for word, short in (("pickup", "Pickup"), ("van", "Van"), ("sport utility", "SUV")):
        if word in low:
            return short
    return text.removesuffix(" Car") or None
