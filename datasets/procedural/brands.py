"""Eight invented brands, each with its own proportions, roofline, grille and lamps, for ordinary and show cars.

Paint, view, backdrop and light are independent of the brand.
"""

from dataclasses import dataclass
from typing import Literal

from datasets.procedural.factors import Body

Bars = Literal["upright", "level", "none"]


@dataclass(frozen=True)
class Grille:
    """An opening in the nose. Heights are shares of the nose from the sill (0) to the bonnet's edge (1), half-widths
    shares of the car's half-width at the lower edge, in the middle and at the upper edge.

    Attributes:
        count: of the bars across it.
        bar: their share of the opening; of metal, or of the body's colour (`painted`).
        frame: width of the metal frame, as a share of the half-width.
    """

    low: float
    high: float
    half_widths: tuple[float, float, float]
    bars: Bars = "none"
    count: int = 0
    bar: float = 0.3
    painted: bool = False
    frame: float = 0.0


@dataclass(frozen=True)
class Lamp:
    """One lens per side. `across`: position from the nose's middle (0) round the corner (1) along the flank. `up`: as
    in `Grille`. `half_across`, `half_up`: in the same units. `slant`: rise outwards. `power`: of the superellipse,
    2 = round.
    """

    across: float
    up: float
    half_across: float
    half_up: float
    slant: float = 0.0
    power: float = 2.0


@dataclass(frozen=True)
class Wheel:
    """A rim. `disc`: metal between the spokes, 1 = a full disc. `hub`, `lip`: shares of the radius. `tone`: brightness
    of the metal, 1 = as for cars without a brand.
    """

    spokes: int
    disc: float = 0.0
    hub: float = 0.24
    lip: float = 0.10
    tone: float = 1.0


@dataclass(frozen=True)
class BrandStyle:
    """A brand. `body`: as in `factors.BODIES`. `peak`: position of the roof's highest point, as a share of its length,
    and its extra height in metres. `cladding`: dark plastic over sills and arches, 0 to 1.
    """

    name: str
    body: Body
    grille: Grille
    lamps: tuple[Lamp, ...]
    wheel: Wheel
    peak: tuple[float, float]
    cladding: float = 0.0


# length, bonnet, boot, roof height, wheelbase, wheel, clearance, width, glass, windscreen, tail, lamps: today, on show
BRAND_STYLES = (
    BrandStyle(  # a stately saloon behind a tall framed grille
        "avorel",
        ((4.95, 1.53, 0.86, 1.49, 2.98, 0.665, 0.150, 1.86, 0.34, 33, 40, 0.140),
         (4.98, 1.32, 0.74, 1.20, 3.12, 0.780, 0.105, 1.96, 0.30, 25, 27, 0.050)),
        Grille(0.22, 0.97, (0.34, 0.36, 0.36), "upright", 5, 0.30, frame=0.10),
        (Lamp(0.60, 0.68, 0.11, 0.13), Lamp(0.86, 0.68, 0.11, 0.13)),
        Wheel(5, disc=1.0, tone=1.3),
        peak=(0.40, 0.02),
    ),
    BrandStyle(  # an upright box for bad roads: slots in painted metal between two large round lamps
        "brontal",
        ((4.35, 1.12, 0.06, 1.79, 2.60, 0.780, 0.255, 1.90, 0.32, 37, 74, 0.150),
         (4.40, 0.98, 0.08, 1.50, 2.82, 0.850, 0.210, 2.00, 0.29, 34, 66, 0.060)),
        Grille(0.30, 0.88, (0.46, 0.46, 0.46), "upright", 5, 0.52, painted=True),
        (Lamp(0.76, 0.62, 0.20, 0.22),),
        Wheel(5, tone=0.15),
        peak=(0.50, 0.0),
        cladding=1.0,
    ),
    BrandStyle(  # a low coupe with one long tail, a wide mouth and slits of light
        "cindaro",
        ((4.55, 1.50, 0.20, 1.20, 2.70, 0.690, 0.110, 1.90, 0.30, 24, 15, 0.080),
         (4.58, 1.30, 0.20, 1.00, 2.86, 0.790, 0.085, 2.01, 0.28, 18, 13, 0.030)),
        Grille(0.06, 0.46, (0.55, 0.74, 0.58)),
        (Lamp(0.80, 0.80, 0.30, 0.075, slant=0.16, power=4),),
        Wheel(5, lip=0.04, tone=1.3),
        peak=(0.15, 0.0),
    ),
    BrandStyle(  # one box from nose to tail: a thin strip across, lamps that stand upright in the corners
        "dravik",
        ((4.35, 0.56, 0.06, 1.78, 2.86, 0.620, 0.155, 1.80, 0.45, 33, 70, 0.160),
         (4.42, 0.56, 0.08, 1.44, 3.02, 0.740, 0.110, 1.92, 0.42, 25, 58, 0.050)),
        Grille(0.60, 0.70, (0.60, 0.60, 0.60), frame=0.03),
        (Lamp(0.92, 0.66, 0.10, 0.34, power=6),),
        Wheel(8, disc=0.55, lip=0.02, tone=0.7),
        peak=(0.35, 0.03),
    ),
    BrandStyle(  # a long low estate: hexagonal grille, wide flat lamps
        "elmoor",
        ((4.98, 1.34, 0.06, 1.39, 2.95, 0.660, 0.135, 1.85, 0.33, 27, 66, 0.120),
         (5.00, 1.12, 0.08, 1.13, 3.10, 0.775, 0.095, 1.96, 0.30, 20, 54, 0.040)),
        Grille(0.24, 0.86, (0.30, 0.50, 0.34), "level", 3, 0.34, frame=0.05),
        (Lamp(0.84, 0.76, 0.22, 0.11, power=6),),
        Wheel(3, hub=0.1, lip=0.36, tone=1.2),
        peak=(0.55, -0.01),
    ),
    BrandStyle(  # an egg for the town: no grille, a smile low down, eyes
        "fennick",
        ((3.62, 0.74, 0.10, 1.58, 2.48, 0.600, 0.160, 1.70, 0.43, 33, 44, 0.180),
         (3.76, 0.66, 0.14, 1.28, 2.62, 0.730, 0.120, 1.82, 0.39, 26, 34, 0.060)),
        Grille(0.14, 0.26, (0.42, 0.56, 0.60)),
        (Lamp(0.72, 0.72, 0.22, 0.24),),
        Wheel(5, hub=0.62, lip=0.0, tone=1.3),
        peak=(0.45, 0.05),
    ),
    BrandStyle(  # cab forward, a long deck behind it: a band from lamp to lamp in thick rungs
        "gorvan",
        ((4.92, 0.86, 0.95, 1.58, 3.14, 0.730, 0.205, 1.93, 0.36, 35, 72, 0.130),
         (4.94, 0.76, 0.95, 1.28, 3.20, 0.820, 0.155, 2.02, 0.33, 27, 62, 0.050)),
        Grille(0.34, 0.84, (0.66, 0.66, 0.66), "level", 3, 0.42, frame=0.03),
        (Lamp(0.84, 0.62, 0.15, 0.20, power=6),),
        Wheel(4, hub=0.4, lip=0.2, tone=0.45),
        peak=(0.30, 0.0),
        cladding=0.5,
    ),
    BrandStyle(  # a tall wedge whose roof falls to a high tail: a shield, two thin lamps above each other
        "holdane",
        ((4.62, 1.06, 0.34, 1.60, 2.82, 0.790, 0.225, 1.95, 0.29, 26, 25, 0.100),
         (4.66, 0.88, 0.30, 1.28, 2.96, 0.850, 0.160, 2.04, 0.27, 20, 19, 0.040)),
        Grille(0.10, 0.90, (0.06, 0.34, 0.52), frame=0.07),
        (Lamp(0.84, 0.86, 0.24, 0.06, slant=0.05, power=6), Lamp(0.90, 0.58, 0.16, 0.06, slant=0.05, power=6)),
        Wheel(10, hub=0.12, lip=0.06, tone=1.0),
        peak=(0.10, 0.01),
    ),
)  # fmt: skip
BRANDS = tuple(brand.name for brand in BRAND_STYLES)
# Spread of a brand's bodies, as a share of the spread of other cars.
LOOSENESS = 0.6
# Range of `yaw_deg`: near enough to the front that the face is always visible.
YAW_DEG = (35.0, 62.0)
