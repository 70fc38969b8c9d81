"""Why a file is not in the set: the manifest's slugs, their meanings, and the step that gives them."""

from typing import Any

from datasets.clean.rules import UNDECODED, UNPLACED, to_slug

# slug → (heading, meaning). A manifest's `reason` begins with the slug.
REASONS = {
    "unreadable": ("Unreadable", "the file could not be opened or read"),
    "damaged": ("Damaged", "the decoder failed; a part may be missing"),
    "format": ("Another format", "not a JPEG, PNG, WebP, AVIF or HEIC, whatever its name"),
    "too_large": ("Too large", "above the limits for safe decoding"),
    "crash": ("Crashed the decoder", "its process died; the build went on"),
    "timeout": ("Took too long", "the decoder was stopped at the time limit"),
    "link": ("Link", "points to a folder that was already read"),
    "not_a_file": ("Not a file", "a pipe, socket or device"),
    "no_class": ("No class", "lies beside the class folders"),
    "ignored": ("Ignored", "thumbnails, bins, rejected pictures: named by data.ignore"),
    "no_training": ("No training picture", "all usable pictures of its class are held out"),
    "too_small": ("Too small", "its shorter side has too few pixels"),
    "aspect": ("Aspect", "too tall or too wide for a picture of one car"),
    "blank": ("Blank", "nearly one flat colour"),
    "dark": ("Dark", "too dark to see a car"),
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
    "view": ("View", "a usable car, seen from a side not in clean.views"),
    "person": ("By hand", "dropped by a person"),
}

# In order: name, what the pictures that pass it have in common, the slugs of those dropped there.
STEPS = (
    ("decoded", "could be read and decoded", (*UNDECODED, *UNPLACED)),
    ("rules", "large enough, usable shape, not blank or dark", ("too_small", "aspect", "blank", "dark")),
    ("unique", "not a copy of another picture", ("duplicate", "near_duplicate")),
    ("verdict", "one usable car, according to the classifier", ()),
    ("view", "seen from a side in clean.views", ("view",)),
    ("by hand", "not dropped by a person", ("person",)),
)
STEP_OF = {slug: name for name, _, slugs in STEPS for slug in slugs}


def slug_of(line: dict[str, Any]) -> str:
    """The reason's slug; "" for a kept picture."""
    return to_slug(line.get("reason"))


def step_of(line: dict[str, Any]) -> str | None:
    """The step at which a manifest's line was dropped; None = kept."""
    if line.get("verdict") == "keep":
        return None
    slug = slug_of(line)
    return STEP_OF.get(slug, "rules" if line.get("decided_by") == "rule" else "verdict")


def heading_of(slug: str) -> str:
    return REASONS[slug][0] if slug in REASONS else slug.replace("_", " ").capitalize()


def meaning_of(slug: str) -> str:
    return REASONS[slug][1] if slug in REASONS else ""


def detail_of(line: dict[str, Any]) -> str:
    """The reason without its slug."""
    return (line.get("reason") or "").partition(":")[2].strip()
