"""The 16 specs of a car from a page's rows and from file names of the dump."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapers.sites.car_specs import FIELDS, LABELS, specs_from_name, specs_from_rows
from tests.scrapers.local.local_set import SEED_NAME

SEED_SPECS = {
    "make": "Audi",
    "model": "A5",
    "year": 2013,
    "msrp_kusd": 43.0,
    "wheel_in": 18.0,
    "horsepower": 210,
    "displacement_l": 2.0,
    "cylinders": 4,
    "width_in": 73.0,
    "height_in": 54.0,
    "length_in": 182.0,
    "mileage_mpg": 24.0,
    "drivetrain": "FWD",
    "seats": 4,
    "doors": 2,
    "body_style": "Convertible",
}


def test_the_name_that_the_dump_is_described_with():
    assert repr(specs_from_name(SEED_NAME)) == repr(SEED_SPECS)  # 210 is not 210.0
    assert tuple(SEED_SPECS) == FIELDS and len(FIELDS) == 16


@pytest.mark.parametrize(
    ("begin", "make", "model"),
    [
        ("Aston Martin_Vantage", "Aston Martin", "Vantage"),
        ("Jaguar_F-Pace", "Jaguar", "F-Pace"),
        ("BMW_3.0 CS", "BMW", "3.0 CS"),
        ("BMW_6-Series_Gran_Coupe", "BMW", "6-Series_Gran_Coupe"),
        ("Land_Rover_Range Rover", "Land Rover", "Range Rover"),
        ("Mercedes-Benz_GLE Class", "Mercedes-Benz", "GLE Class"),
        ("Mazda_3", "Mazda", "3"),
        ("Chrysler_200", "Chrysler", "200"),
        ("Chrysler_2000_300", "Chrysler", "2000_300"),
    ],
)
def test_makes_and_models_of_any_form(begin, make, model):
    specs = specs_from_name(f"{begin}_2013_43_18_210_20_4_73_54_182_24_FWD_4_2_Convertible_eUH.jpg")
    assert specs and (specs["make"], specs["model"], specs["year"]) == (make, model, 2013)


def test_unknown_fields_are_none():
    specs = specs_from_name("Tesla_Model X_2016_nan_20_nan_nan_nan_78_66_198_nan_AWD_nan_nan_nan_abC.jpg")
    assert specs and specs["model"] == "Model X"
    none = ("msrp_kusd", "horsepower", "displacement_l", "cylinders", "mileage_mpg", "seats", "doors", "body_style")
    assert {field for field, value in specs.items() if value is None} == set(none)
    assert (specs["wheel_in"], specs["length_in"], specs["drivetrain"]) == (20.0, 198.0, "AWD")


def test_a_body_style_with_underscores():
    specs = specs_from_name(SEED_NAME.replace("Convertible", "Extended_Cab_Pickup"))
    assert specs == SEED_SPECS | {"body_style": "Extended_Cab_Pickup"}


@pytest.mark.parametrize(
    "name",
    [
        "IMG_2013.jpg",
        "",
        "Audi_A5_2013_43_18_210_20_4_73_54_182_24_FWD_4_2_Convertible.jpg",  # no ending of three letters
        "Audi_A5_2013_43_18_210_20_4_73_54_182_24_FWD_4_2_Convertible_e1H.jpg",
        "Audi_A5_13_43_18_210_20_4_73_54_182_24_FWD_4_2_Convertible_eUH.jpg",  # no year
        "Audi_2013_43_18_210_20_4_73_54_182_24_FWD_4_2_Convertible_eUH.jpg",  # no model
        "Audi_A5_2013_43_18_fast_20_4_73_54_182_24_FWD_4_2_Convertible_eUH.jpg",
        "Audi_A5_2013_43_18_210_20_4_73_54_182_24_drive_4_2_Convertible_eUH.jpg",
        "_A5_2013_43_18_210_20_4_73_54_182_24_FWD_4_2_Convertible_eUH.jpg",
        "_".join(["a"] * 40) + ".jpg",
    ],
)
def test_other_names_are_not_read(name):
    assert specs_from_name(name) is None


words = st.text(string.ascii_letters + string.digits + " -.&'", min_size=1, max_size=12).filter(
    lambda text: text.strip() == text and text.lower() != "nan"
)
tens = st.integers(0, 99).map(lambda n: n * 10)
maybe = st.none


def text_of(value: object) -> str:
    return "nan" if value is None else str(value)


@given(
    make=words.filter(lambda text: text.lower() not in ("alfa", "aston", "land", "mercedes", "rolls", "am", "range")),
    model=words,
    year=st.integers(1900, 2099),
    numbers=st.tuples(*[maybe() | st.integers(0, 999) for _ in range(9)]),
    drivetrain=maybe() | st.sampled_from(["FWD", "RWD", "AWD", "4WD"]),
    seats=maybe() | st.integers(1, 15),
    doors=maybe() | st.integers(0, 6),
    body=maybe() | words,
    ending=st.text(string.ascii_letters, min_size=3, max_size=3),
)
def test_what_is_written_as_the_dump_does_is_read_back(
    make, model, year, numbers, drivetrain, seats, doors, body, ending
):
    parts = [make, model, year, *numbers, drivetrain, seats, doors, body, ending]
    specs = specs_from_name("_".join(map(text_of, parts)) + ".jpg")
    price, wheel, power, displacement, cylinders, width, height, length, mileage = numbers
    assert specs == {
        "make": make,
        "model": model,
        "year": year,
        "msrp_kusd": price,
        "wheel_in": wheel,
        "horsepower": power,
        "displacement_l": None if displacement is None else displacement / 10,
        "cylinders": cylinders,
        "width_in": width,
        "height_in": height,
        "length_in": length,
        "mileage_mpg": mileage,
        "drivetrain": drivetrain,
        "seats": seats,
        "doors": doors,
        "body_style": body,
    }


@given(st.text(max_size=200) | st.lists(words, max_size=25).map("_".join))
def test_no_name_breaks_it(name):
    specs = specs_from_name(name)
    assert specs is None or tuple(specs) == FIELDS


@pytest.mark.parametrize(
    ("label", "text", "field", "value"),
    [
        ("MSRP", "$43,450", "msrp_kusd", 43.45),
        ("MSRP", "N/A", "msrp_kusd", None),
        ("Front Wheel Size (in)", "18 X 8.5", "wheel_in", 18.0),
        ("SAE Net Horsepower @ RPM", "211 @ 4300-6000", "horsepower", 211),
        ("Displacement", "2.0 L/121", "displacement_l", 2.0),
        ("Displacement", "6.75L/412", "displacement_l", 6.75),
        ("Displacement", "121 cu in", "displacement_l", None),
        ("Engine Type", "Intercooled Turbo Premium Unleaded I-4", "cylinders", 4),
        ("Engine Type", "Twin Turbo Gas/Electric V-8", "cylinders", 8),
        ("Engine Type", "Premium Unleaded H-6", "cylinders", 6),
        ("Engine Type", "Turbocharged Gas I4 1.5L", "cylinders", 4),
        ("Engine Type", "12 Cylinder", "cylinders", 12),
        ("Engine Type", "Electric", "cylinders", None),
        ("Length, Overall (in)", "182.1", "length_in", 182.1),
        ("Gas Mileage", "24 mpg City/31 mpg Hwy", "mileage_mpg", 24.0),
        ("Gas Mileage", "- TBD -", "mileage_mpg", None),
        ("Drivetrain", "Front Wheel Drive", "drivetrain", "FWD"),
        ("Drivetrain", "All-Wheel Drive", "drivetrain", "AWD"),
        ("Drivetrain", "Four Wheel Drive", "drivetrain", "4WD"),
        ("Drivetrain", "Rear-Wheel Drive", "drivetrain", "RWD"),
        ("Body Style", "2dr Car", "body_style", "2dr"),
        ("Body Style", "Sport Utility", "body_style", "SUV"),
        ("Body Style", "Crew Cab Pickup - Short Bed", "body_style", "Pickup"),
        ("Body Style", "Full-size Passenger Van", "body_style", "Van"),
        ("Body Style", "Hatchback", "body_style", "Hatchback"),
        ("Passenger Doors", "4", "doors", 4),
    ],
)
def test_the_site_s_texts(label, text, field, value):
    found = specs_from_rows({label: text})[field]
    assert (type(found), found) == (type(value), value)


def test_an_empty_page_says_nothing():
    assert specs_from_rows({}) == dict.fromkeys(LABELS)
