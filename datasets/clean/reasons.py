"""Why a file is not in the set: the words of the manifest, what they mean, and the step of the stage that says them."""

from typing import Any

from datasets.clean.rules import UNDECODED, UNPLACED

# slug → (heading, meaning). Slugs are what a manifest's `reason` begins with.
REASONS = {
    "unreadable": ("Unreadable", "the file could not be opened or read"),
    "damaged": ("Damaged", "the decoder gave up; a part may be missing"),
    "format": ("Another format", "none of JPEG, PNG, WebP, AVIF and HEIC, whatever its name says"),
    "too_large": ("Too large", "beyond the limits within which decoding is safe"),
    "crash": ("Crashed the decoder", "its process died of it, the others went on"),
    "timeout": ("Took too long", "the decoder was stopped"),
    "link": ("Link", "leads to a folder that was read already"),
    "not_a_file": ("Not a file", "a pipe, socket or device"),
    "no_class": ("No class", "lies beside the class folders"),
    "ignored": ("Ignored", "thumbnails, a bin, rejected pictures: what data.ignore names"),
    "no_training": ("No training picture", "all usable pictures of its class are held out"),
    "too_small": ("Too small", "its shorter side has too few pixels"),
    "aspect": ("Aspect", "too tall or too wide for a picture of one car"),
    "blank": ("Blank", "one flat colour, or nearly"),
    "dark": ("Dark", "too little light to see a car in"),
    "duplicate": ("Duplicate", "the same picture, byte by byte or pixel by pixel"),
    "near_duplicate": ("Near duplicate", "the same picture resized, saved again or cropped; the best copy is kept"),
    "logo": ("Logo", "a badge or a wordmark"),
    "graphic": ("Graphic", "drawn, or covered with text"),
    "not_a_car": ("Not a car", "no passenger car is the subject"),
    "interior": ("Interior", "seen from inside"),
    "several_cars": ("Several cars", "more than one car is the subject"),
    "collage": ("Collage", "several pictures in one"),
    "people": ("People", "people cover the car or are the subject"),
    "part": ("Part of a car", "a wheel, a lamp, an engine: the car is not whole"),
    "view": ("View", "a usable car, seen from a side that this set does not want"),
    "person": ("By hand", "a person decided so in the clinic"),
}

# In the order in which a picture meets them: name, what it has done who passed it, the slugs that drop it there.
STEPS = (
    ("decoded", "could be read and decoded", (*UNDECODED, *UNPLACED)),
    ("rules", "large enough, of a usable shape, not blank or dark", ("too_small", "aspect", "blank", "dark")),
    ("unique", "not a copy of another picture", ("duplicate", "near_duplicate")),
    ("verdict", "one usable car, as the sorter judges", ()),
    ("view", "seen from a side that is wanted", ("view",)),
    ("by hand", "not dropped by a person", ("person",)),
)
STEP_OF = {slug: name for name, _, slugs in STEPS for slug in slugs}


def slug_of(line: dict[str, Any]) -> str:
    """The reason's first word; "" for a picture that was kept."""
    return (line.get("reason") or "").partition(":")[0]


def step_of(line: dict[str, Any]) -> str | None:
    """At which step a manifest's line was dropped; None = kept."""
    if line.get("verdict") == "keep":
        return None
    slug = slug_of(line)
    return STEP_OF.get(slug, "rules" if line.get("decided_by") == "rule" else "verdict")


def heading_of(slug: str) -> str:
    return REASONS[slug][0] if slug in REASONS else slug.replace("_", " ").capitalize()


def meaning_of(slug: str) -> str:
    return REASONS[slug][1] if slug in REASONS else ""


def detail_of(line: dict[str, Any]) -> str:
    """What the reason says beyond its slug."""
    return (line.get("reason") or "").partition(":")[2].strip()
