"""The factors of a picture of a car, and their random draws."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

Kind = Literal["ordinary", "concept", "brands", "brand_concepts"]
FUTURISM_RANGES: dict[str, tuple[float, float]] = {
    "ordinary": (0.0, 0.3),
    "concept": (0.7, 1.0),
    "brands": (0.0, 0.3),
    "brand_concepts": (0.7, 1.0),
}
BRAND_KINDS = ("brands", "brand_concepts")
Row = tuple[float, ...]
Body = tuple[Row, Row]  # ordinary and show car; columns: _BODY_COLUMNS

# Factor → range of drawn values, and unit.
RANGES: dict[str, tuple[float, float, str]] = {
    "futurism": (0.0, 1.0, "0 = today's car, 1 = show car"),
    "yaw_deg": (35.0, 82.0, "degrees; 0 = seen from the front, 90 = from its left side"),
    "pitch_deg": (3.0, 14.0, "degrees of the camera above the horizon"),
    "distance": (6.5, 11.0, "metres from the camera to the car (perspective, not size)"),
    "framing": (0.86, 0.95, "share of the picture's width that the car fills"),
    "bonnet": (0.55, 1.55, "metres from the nose to the windscreen's base"),
    "cabin": (2.3, 4.0, "metres from the windscreen's base to the rear window's base"),
    "boot": (0.05, 0.95, "metres from the rear window's base to the tail"),
    "roof_height": (0.98, 1.80, "metres above the ground"),
    "width": (1.68, 2.06, "metres without mirrors"),
    "wheelbase": (2.45, 3.20, "metres between the axles"),
    "wheel_size": (0.58, 0.86, "metres, diameter with tyre"),
    "clearance": (0.08, 0.26, "metres from the ground to the sill"),
    "glass": (0.26, 0.46, "side windows' share of the body's height"),
    "windscreen_deg": (17.0, 37.0, "degrees of the windscreen above the horizontal"),
    "tail_deg": (12.0, 74.0, "degrees of the rear window above the horizontal"),
    "lights": (0.025, 0.20, "metres, height of the headlamps"),
    "spokes": (5.0, 10.99, "spokes of a rim, rounded down"),
    "paint_hue": (0.0, 1.0, "turns round the colour circle"),
    "paint_saturation": (0.0, 0.95, "HSV saturation"),
    "paint_value": (0.05, 0.97, "HSV value"),
}


@dataclass(frozen=True)
class Factors:
    """Car and view of one picture, without backdrop and light; ranges and units in `RANGES`."""

    futurism: float
    yaw_deg: float
    pitch_deg: float
    distance: float
    framing: float
    bonnet: float
    cabin: float
    boot: float
    roof_height: float
    width: float
    wheelbase: float
    wheel_size: float
    clearance: float
    glass: float
    windscreen_deg: float
    tail_deg: float
    lights: float
    spokes: float
    paint_hue: float
    paint_saturation: float
    paint_value: float


FACTOR_NAMES = tuple(field.name for field in fields(Factors))

# name → (ordinary, show car); interpolated by futurism, then jittered.
_BODY_COLUMNS = (
    "length",
    "bonnet",
    "boot",
    "roof_height",
    "wheelbase",
    "wheel_size",
    "clearance",
    "width",
    "glass",
    "windscreen_deg",
    "tail_deg",
    "lights",
)
BODIES: dict[str, Body] = {
    "hatchback": ((4.15, 1.08, 0.12, 1.47, 2.58, 0.625, 0.155, 1.76, 0.385, 31, 52, 0.150),
                  (4.45, 0.78, 0.24, 1.13, 2.86, 0.755, 0.100, 1.94, 0.325, 20, 22, 0.035)),
    "saloon": ((4.75, 1.30, 0.72, 1.44, 2.80, 0.650, 0.150, 1.83, 0.370, 28, 27, 0.135),
               (4.80, 0.90, 0.42, 1.07, 3.02, 0.765, 0.090, 1.98, 0.310, 19, 15, 0.032)),
    "estate": ((4.70, 1.28, 0.08, 1.47, 2.80, 0.650, 0.150, 1.83, 0.375, 29, 62, 0.135),
               (4.75, 0.86, 0.24, 1.10, 3.02, 0.765, 0.095, 1.97, 0.315, 19, 21, 0.032)),
    "suv": ((4.55, 1.22, 0.10, 1.70, 2.72, 0.730, 0.215, 1.90, 0.350, 34, 60, 0.155),
            (4.65, 0.86, 0.22, 1.23, 2.94, 0.830, 0.140, 2.00, 0.310, 22, 25, 0.040)),
}  # fmt: skip


def draw_factors(
    kind: Kind,
    rng: np.random.Generator,
    futurism_range: tuple[float, float] | None = None,
    bodies: Sequence[Body] = tuple(BODIES.values()),
    looseness: float = 1.0,
) -> Factors:
    """Draws a car. Equal `rng` states with another range give the same car, view and paint at another futurism.

    Args:
        bodies: one of them is chosen.
        looseness: 0 or more, scales the jitter of the body.
    """
    low, high = futurism_range or FUTURISM_RANGES[kind]
    assert 0.0 <= low <= high <= 1.0, (low, high)
    futurism = low + (high - low) * rng.random()
    today, show = bodies[int(rng.integers(len(bodies)))]
    jitter = np.clip(rng.normal(0.0, 1.0, len(_BODY_COLUMNS)), -1.8, 1.8)
    spread = np.array([0.03, 0.05, 0.12, 0.022, 0.015, 0.022, 0.08, 0.012, 0.025, 0.05, 0.08, 0.10])
    values = (np.array(today) * (1 - futurism) + np.array(show) * futurism) * (1 + looseness * spread * jitter)
    body: dict[str, float] = dict(zip(_BODY_COLUMNS, values.tolist(), strict=True))
    length = body.pop("length")
    body["wheelbase"] = min(body["wheelbase"], length - 1.75 * body["wheel_size"])
    body["cabin"] = length - body["bonnet"] - body["boot"]
    view = {name: rng.uniform(*RANGES[name][:2]) for name in ("yaw_deg", "pitch_deg", "distance", "framing", "spokes")}
    drawn = {"futurism": futurism, **view, **body, **_draw_paint(rng)}
    return Factors(**{name: float(np.clip(drawn[name], *RANGES[name][:2])) for name in FACTOR_NAMES})


def _draw_paint(rng: np.random.Generator) -> dict[str, float]:
    """Nearly half of the cars are white, silver, grey or black; the others have a colour."""
    hue, dull, sharp, choice = rng.random(4)
    if choice < 0.45:
        return {
            "paint_hue": hue,
            "paint_saturation": 0.07 * dull,
            "paint_value": (0.06, 0.35, 0.62, 0.93)[int(4 * sharp)],
        }
    # reds and blues are common, greens, yellows and oranges rarer, magentas rare
    warped = np.interp(hue, [0, 0.30, 0.45, 0.52, 0.62, 0.92, 1.0], [-0.03, 0.02, 0.11, 0.30, 0.52, 0.63, 0.66]) % 1.0
    green = np.exp(-(((warped - 0.38) / 0.13) ** 2))  # green and turquoise paints are duller and darker
    return {
        "paint_hue": float(warped),
        "paint_saturation": (0.58 + 0.34 * dull) * (1 - 0.30 * green),
        "paint_value": (0.28 + 0.62 * sharp) * (1 - 0.35 * green),
    }
