"""The clinic in a headless Chromium: keys, clicks, tabs, accessibility, and a rebuild from end to end."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.clean.manual_labels import read_decisions
from datasets.pack.recipe import SetPlan
from harness.config.experiment import load_config
from harness.storage.hdf5 import open_packed
from tests.commands import python_at_work, run_python, wait_until
from tests.datasets.clinic_set import DECISIONS, draw, line, write_set
from tests.datasets.stand_in import BASE, make_config, read_manifest
from tests.serving import served

pytestmark = pytest.mark.browser

HOSTILE = '"><script>document.title="taken over"</script>.jpg'


@pytest.fixture
def clinic() -> Iterator[str]:
    """Address of the clinic of a small set, served in this process."""
    pytest.importorskip("uvicorn", reason="needs the ui extra: pip install fastapi uvicorn")
    from datasets.clinic.command import open_session
    from datasets.clinic.server import make_app

    lines = [line(f"good/{k:02d}.jpg", view_confidence=round(0.3 + k / 100, 2)) for k in range(54)]
    lines += [line("copy.jpg", reason="duplicate: same bytes", duplicate_of="good/05.jpg", decided_by="rule")]
    lines += [line(HOSTILE, reason="blank: one colour", decided_by="rule")]
    write_set(make_config(), lines, {one["file"]: draw(k) for k, one in enumerate(lines)})
    session = open_session(make_config(), ["sh", "-c", "echo 'error: nothing to build' >&2; exit 2"])
    with served(make_app(session)) as address:
        yield address
    session.close()


def choices() -> dict[str, tuple[str, str]]:
    """File → (verdict, view), as on disk."""
    return {one.file: (one.verdict, one.view) for one in read_decisions(DECISIONS).values()}


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def focused(page: Any) -> str:
    return page.evaluate("document.activeElement.dataset.file || ''")


def picture(page: Any, file: str) -> Any:
    return page.locator(f'.pic[data-file="{file}"]')


def test_keys(tab, clinic):
    """Keep, drop, views, moving, undo, help, next page."""
    tab.goto(clinic + "?sheet=kept")
    assert focused(tab) == "good/00.jpg"
    press(tab, "d", "k", "ArrowRight", "7", "d")
    wanted = {"good/00.jpg": ("drop", ""), "good/01.jpg": ("keep", ""), "good/03.jpg": ("drop", "rear_left")}
    wait_until(lambda: choices() == wanted, f"{choices()}")
    assert focused(tab) == "good/04.jpg" and tab.inner_text("#count") == "3"
    press(tab, "z", "z")
    tab.wait_for_selector('.pic[data-file="good/03.jpg"][data-verdict=""][data-view=""]')
    assert "good/03.jpg" not in choices() and focused(tab) == "good/03.jpg"
    press(tab, "ArrowLeft", "ArrowDown")
    columns = tab.evaluate("getComputedStyle(document.querySelector('.pics')).gridTemplateColumns.split(' ').length")
    assert focused(tab) == f"good/{2 + columns:02d}.jpg"
    tab.keyboard.press("ArrowUp")
    assert focused(tab) == "good/02.jpg"
    tab.keyboard.press("/")
    assert tab.locator("#help").is_visible()
    press(tab, "d", "Escape")  # d does nothing while the help is open
    assert not tab.locator("#help").is_visible()
    tab.keyboard.press("n")
    tab.wait_for_url("**page=2")
    assert focused(tab) == "good/48.jpg" and set(choices()) == {"good/00.jpg", "good/01.jpg"}
    tab.keyboard.press("z")  # undo survives the page change
    wait_until(lambda: set(choices()) == {"good/00.jpg"}, "undo forgot what came before the page was turned")


def test_click_and_touch(tab, clinic):
    tab.goto(clinic + "?sheet=kept")
    card = picture(tab, "good/07.jpg")
    card.get_by_role("button", name="Drop", exact=True).click()
    card.get_by_role("combobox").select_option("rear")
    wait_until(lambda: choices() == {"good/07.jpg": ("drop", "rear")}, f"{choices()}")
    card.get_by_role("button", name="Drop", exact=True).click()  # a second click deletes it
    wait_until(lambda: choices() == {"good/07.jpg": ("", "rear")}, f"{choices()}")
    tab.click("#undo")
    wait_until(lambda: choices() == {"good/07.jpg": ("drop", "rear")}, f"{choices()}")
    card.get_by_role("button", name=re.compile("Enlarge")).click()
    large = tab.locator("#large-picture")
    large.wait_for()
    assert large.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 90
    press(tab, "ArrowRight", "k")
    wait_until(lambda: choices().get("good/08.jpg") == ("keep", ""), "keys are dead under the large picture")
    tab.keyboard.press("Escape")
    wait_until(lambda: focused(tab) == "good/09.jpg", "the focus is not where it was under the large picture")


def test_two_tabs_lose_nothing(tab, clinic):
    """Both are open from the start; one decides the other's picture."""
    other = tab.context.new_page()
    for page in (tab, other):
        page.goto(clinic + "?sheet=kept")
    tab.keyboard.press("d")
    wait_until(lambda: len(choices()) == 1, "first tab")
    press(other, "3", "ArrowRight", "d")
    wait_until(lambda: len(choices()) == 2, "second tab")
    assert choices() == {"good/00.jpg": ("drop", "front_left"), "good/01.jpg": ("drop", "")}
    tab.bring_to_front()
    tab.keyboard.press("z")  # the choice has changed since, so undo is refused
    wait_until(lambda: tab.text_content("#count") == "2", "the first tab does not show the other's choice")
    assert choices()["good/00.jpg"] == ("drop", "front_left")


def test_a_stopped_clinic_is_reported(tab, clinic):
    tab.goto(clinic + "?sheet=kept")
    tab.route("**/choices", lambda route: route.abort())
    tab.keyboard.press("d")
    tab.get_by_text("was not saved").wait_for()
    assert picture(tab, "good/00.jpg").get_attribute("data-verdict") == "" and choices() == {}


def test_hostile_names_and_phones(tab, clinic):
    tab.set_viewport_size({"width": 390, "height": 800})
    for sheet in ("border", "dropped", "kept", "copies", "mine", "changed"):
        tab.goto(f"{clinic}?sheet={sheet}")
        assert tab.title() == "mine · data clinic · Carforge"
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, sheet
    tab.goto(clinic + "?sheet=dropped")
    assert tab.locator(".pic").get_attribute("data-file") == HOSTILE


NAMELESS = """() => [...document.querySelectorAll('a, button, select, input:not([type=hidden]), img')]
    .filter((one) => one.checkVisibility())
    .filter((one) => !(one.ariaLabel || one.alt || one.textContent.trim() || (one.labels || []).length))
    .map((one) => one.outerHTML)"""
PALE = """() => {
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (level) => level <= 0.03928 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4;
    const light = (text) => {
        const [r, g, b] = numbers(text).map((level) => linear(level / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (one) => {
        for (; one; one = one.parentElement) {
            const back = getComputedStyle(one).backgroundColor;
            if (numbers(back)[3] !== 0) { return back; }
        }
        return 'rgb(255, 255, 255)';
    };
    const ratio = (one) => {
        const [a, b] = [light(getComputedStyle(one).color), light(behind(one))];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    };
    const says = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    return [...document.querySelectorAll('body *')]
        .filter((one) => one.checkVisibility() && !one.disabled && !one.closest('svg, :disabled') && says(one))
        .filter((one) => ratio(one) < 4.5)
        .map((one) => one.className + ' ' + one.textContent.trim().slice(0, 30));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_enough_contrast(tab, clinic, scheme):
    """WCAG 2.2: 4.1.2 names, 1.4.3 contrast 4.5 : 1. The clinic and the report."""
    from datasets.report.report import write_report

    tab.emulate_media(color_scheme=scheme)
    report = write_report(SetPlan.of(make_config().data)).absolute().as_uri()
    for address in (clinic + "?sheet=kept", clinic + "?sheet=dropped", clinic + "?sheet=copies", report):
        tab.goto(address)
        assert tab.evaluate(NAMELESS) == [], address
        assert tab.evaluate(PALE) == [], address
    for width in (390, 1280):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_failed_rebuild_is_reported(tab, clinic):
    tab.goto(clinic)
    tab.click("#rebuild")
    tab.get_by_text("the set is as it was: nothing to build").wait_for()
    assert tab.locator("#rebuild").is_enabled()


# ---- end to end ----

CONFIG = f"""extends: {BASE}
data: {{set: street, kind: messy, count: 72, img_size: 32, valid_fraction: 0.1}}
"""


def manifest() -> dict[str, dict[str, Any]]:
    return {one["file"]: one for one in read_manifest(load_config("street.yaml").data)}


def packed_pictures() -> set[bytes]:
    """Every packed picture of both files, as bytes."""
    data, found = load_config("street.yaml").data, set()
    for split in ("train", "valid"):
        if data.hdf5_path(split).exists():
            with open_packed(data.hdf5_path(split)) as packed:
                found |= {picture.tobytes() for picture in packed.read()}
    return found


def packed_picture(entry: dict[str, Any]) -> bytes:
    with open_packed(load_config("street.yaml").data.hdf5_path(entry["split"])) as packed:
        return packed.read(np.array([entry["row"]]))[0].tobytes()


@pytest.mark.slow
def test_drop_a_picture_relabel_a_view_rebuild_and_see_it_in_the_set(tab):
    """On the messy set; the change is in the manifest and in the HDF5."""
    Path("street.yaml").write_text(CONFIG)
    arguments = ("build", "--config", "street.yaml", "--stage", "train", "--workers", "0")
    assert run_python("-m", "datasets", *arguments).returncode == 0
    before = manifest()
    kept = [file for file, entry in before.items() if entry["verdict"] == "keep"]
    assert len(kept) > 4
    pictures = {file: packed_picture(before[file]) for file in kept}
    with python_at_work("-m", "datasets", "clinic", "--config", "street.yaml") as clinic:
        assert clinic.stdout is not None
        address = clinic.stdout.readline().strip()
        tab.goto(address + "?sheet=kept")
        unwanted = focused(tab)
        tab.keyboard.press("d")
        turned = focused(tab)
        assert turned != unwanted and before[turned]["view"] != "front"
        tab.keyboard.press("5")  # front: not among the views that the set wants
        wait_until(lambda: tab.text_content("#waiting") == "2", "the choices were not taken")
        tab.click("#rebuild")
        tab.locator("#rebuilt").wait_for(timeout=240_000)
        banner = tab.inner_text("#rebuilt")
        tab.goto(address + "?sheet=changed")
        changed = set(tab.locator(".pic").evaluate_all("pics => pics.map((pic) => pic.dataset.file)"))
        clinic.terminate()
        closed = clinic.communicate(timeout=60)[1]
    assert clinic.returncode == 0 and "2 choices" in closed
    after = manifest()
    assert {unwanted, turned} <= changed and re.search(
        r"Rebuilt: [1-9]\d* verdicts? and [1-9]\d* views? changed", banner
    )
    assert (after[unwanted]["verdict"], after[unwanted]["decided_by"]) == ("drop", "person")
    assert after[unwanted]["reason"].startswith("person") and after[unwanted]["row"] is None
    assert (after[turned]["view"], after[turned]["verdict"]) == ("front", "drop")
    assert after[turned]["reason"].startswith("view")
    now = packed_pictures()
    assert {pictures[unwanted], pictures[turned]}.isdisjoint(now)
    stays = [entry for entry in after.values() if entry["verdict"] == "keep"]
    assert stays and {packed_picture(entry) for entry in stays} == now
