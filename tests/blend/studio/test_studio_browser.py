"""The studio as a designer uses it, in a headless Chromium."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blend.designs.parents import ParentStore
from tests.commands import run_python
from tests.harness.pictures import picture_file

pytestmark = pytest.mark.browser

AXE = "CARFORGE_AXE"  # axe.min.js of the npm package axe-core, where somebody has it; or npm fetches it into a folder


@pytest.fixture
def studio(make_studio, serve) -> str:
    return serve(make_studio())


def drop(page: Any, side: str, seed: int) -> None:
    """Through the drop zone, as a file from another window."""
    content = list(picture_file(seed))
    transfer = page.evaluate_handle(
        """(bytes) => { const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], '../../../evil.png', {type: 'image/png'}));
        return transfer; }""",
        content,
    )
    page.locator(f'.parent[data-side="{side}"]').dispatch_event("drop", {"dataTransfer": transfer})
    page.locator(f'.parent[data-side="{side}"] .message', has_text="Redrawn with picture error").wait_for()


def open_with_two_pictures(page: Any, studio: str) -> None:
    page.goto(studio)
    ready(page)
    drop(page, "ordinary", 1)
    drop(page, "concept", 2)


def keep(page: Any, number: int = 1) -> None:
    """Keeps the design and waits until it is on the shelf, in this place."""
    page.click("#keep")
    page.locator(f"#shelf li:nth-child({number})").wait_for()


def drawn(page: Any) -> str:
    """The picture, once it is the one of the address that the page is at."""
    page.wait_for_function(
        "() => { const d = document.getElementById('design'); return !d.hidden && location.search.length > 1"
        " && d.dataset.query === location.search.slice(1); }"
    )
    return page.locator("#design").get_attribute("src")


def ready(page: Any) -> None:
    page.locator("#prepare").wait_for(state="hidden")
    page.wait_for_function("() => !document.getElementById('futurism').disabled")


def dial(page: Any, name: str, value: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(one, value) => { one.value = value; one.dispatchEvent(new Event('input', {bubbles: true}));"
        " one.dispatchEvent(new Event('change', {bubbles: true})); }",
        value,
    )
    page.wait_for_timeout(200)  # the address is written a little later than the dial moves


def futurism(page: Any) -> int:
    return int(page.inner_text("#futurism-out"))


def test_drop_two_drag_keep_three_export_and_share(tab, studio, tmp_path):
    """The whole way of a designer, to the command line that draws the same picture bit for bit."""
    open_with_two_pictures(tab, studio)
    tab.wait_for_url("**o=file-*c=file-*")
    pictures, scores = [], []
    for value in (0.0, 0.5, 1.0):
        dial(tab, "intensity", value)
        pictures.append(drawn(tab))
        scores.append(futurism(tab))
        tab.fill("#note", f"at {value}")
        keep(tab, len(pictures))
    assert len(set(pictures)) == 3 and scores[-1] > scores[0]
    tab.reload()
    tab.locator("#shelf li:nth-child(3)").wait_for()
    notes = tab.locator("#shelf input[type=text]").evaluate_all("all => all.map((one) => one.value)")
    assert notes == ["at 0.0", "at 0.5", "at 1.0"] and drawn(tab) == pictures[-1]
    files = {}
    for kind in ("png", "json"):
        with tab.expect_download() as waiting:
            tab.locator("#take summary").click()
            tab.locator(f'#take a[href^="/export/design.{kind}"]').click()
        files[kind] = tmp_path / f"e.{kind}"
        waiting.value.save_as(files[kind])
    done = run_python("-m", "blend", "draw", "e.json", "--out", "again.png")
    assert done.returncode == 0, done.stderr
    assert Path("again.png").read_bytes() == files["png"].read_bytes()
    other = tab.context.new_page()
    other.goto(tab.url)
    assert drawn(other) == pictures[-1]


def test_a_poor_likeness_is_called_one(tab, studio, monkeypatch):
    """Compared with the median error of the run's pictures, which is set for each side here."""
    median = {"ordinary": 10.0, "concept": 0.0001}
    monkeypatch.setattr(ParentStore, "median_error", lambda self, side: median[side])
    open_with_two_pictures(tab, studio)
    text = {side: tab.inner_text(f'.parent[data-side="{side}"] .message') for side in median}
    assert "(usual here: 10.0000); first guess" in text["ordinary"] and "poor" not in text["ordinary"]
    assert "(usual here: 0.0001): a poor likeness. Another picture may work better." in text["concept"]


def test_latents_that_a_restarted_studio_does_not_know_are_found_again(tab, studio):
    """As after a restart without the run's inversions, while the page stayed open."""
    open_with_two_pictures(tab, studio)
    before, reference = drawn(tab), tab.url.partition("o=")[2].partition("&")[0]
    draws: list[str] = []
    searches: list[str] = []
    tab.on("request", lambda one: searches.append(one.url) if one.url.endswith("/jobs/parent") else None)

    def draw(route: Any) -> None:
        if searches:
            route.continue_()
        else:
            draws.append(route.request.url)
            route.fulfill(json={"not_inverted": {"side": "ordinary", "reference": reference}})

    tab.route("**/draw?*", draw)
    dial(tab, "intensity", 1.0)
    assert drawn(tab) != before and searches and 1 <= len(draws) <= 3


def test_a_target_futurism_moves_the_other_dials(tab, studio):
    tab.goto(f"{studio}?o=seed-3&c=seed-5&i=0.1")
    ready(tab)
    dial(tab, "futurism", 0)
    drawn(tab)
    tab.locator("#reach", has_text="these two cars can score").wait_for()
    assert "f=0" in tab.url and not tab.is_checked("#follow")
    dial(tab, "intensity", 0.3)
    drawn(tab)
    assert "f=" not in tab.url and tab.inner_text("#intensity-out") == "30 %"
    dial(tab, "intensity", 0.25)  # half-way between two places of the strip
    drawn(tab)
    tab.locator("#sweep [aria-current]").first.wait_for()
    assert tab.locator("#sweep [aria-current]").count() == 1


def test_keyboard_alone(tab, studio):
    """From the top: the skip link, dials by arrows, keep, help; nothing without a visible focus."""
    tab.goto(f"{studio}?o=seed-3&c=seed-5&i=0.5")
    drawn(tab)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "To the dials"
    reached = set()
    for _ in range(60):
        tab.keyboard.press("Tab")
        reached.add(
            tab.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.dataset.do"
            )
        )
    assert {"surprise", "link", "help-open", "file", "note", "keep", "intensity", "style", "follow"} <= reached
    tab.focus("#intensity")
    before = drawn(tab)
    for _ in range(10):
        tab.keyboard.press("ArrowRight")
    tab.wait_for_function("() => document.getElementById('intensity-out').textContent === '60 %'")
    tab.wait_for_timeout(200)
    assert drawn(tab) != before
    tab.keyboard.press("k")
    tab.locator("#shelf li").wait_for()
    tab.keyboard.press("/")
    assert tab.locator("#help").is_visible()
    tab.keyboard.press("Escape")
    tab.keyboard.press("r")
    tab.wait_for_url(lambda url: "o=seed-3" not in url)
    drawn(tab)


def test_gallery_mixing_comparing_and_removing(tab, studio):
    tab.goto(f"{studio}?o=seed-3&c=seed-5&i=0.5")
    first = drawn(tab)
    panel = tab.locator('.parent[data-side="ordinary"]')
    panel.get_by_role("button", name="Mix in another").click()
    tab.locator("#gallery-pictures button").first.click()
    tab.wait_for_url("**o=seed-3&o=valid-*")
    assert drawn(tab) != first and panel.locator(".others li").count() == 2
    panel.get_by_role("button", name="Remove random car 3").click()
    tab.wait_for_url(lambda url: "seed-3" not in url)
    drawn(tab)
    for value in (0.2, 0.8):
        dial(tab, "intensity", value)
        drawn(tab)
        keep(tab, 1 + (value > 0.5))
    for number in (1, 2):
        tab.locator(f"#shelf li:nth-child({number}) input[type=checkbox]").check()
    tab.click("#compare")
    assert tab.locator("#two figure").count() == 2
    tab.keyboard.press("Escape")
    tab.locator("#shelf li").first.get_by_role("button", name="Remove").click()
    tab.get_by_role("button", name="Undo").click()
    tab.locator("#shelf-message", has_text="Restored").wait_for()
    assert tab.locator("#shelf li").count() == 2


def test_no_dead_ends(tab, studio):
    """An empty shelf, a failed upload, a lost server: the page says what to do, and reconnects by itself."""
    tab.goto(f"{studio}?o=seed-3&c=seed-5&i=0.5")
    drawn(tab)
    tab.locator("#shelf-message", has_text="Nothing kept yet").wait_for()
    file = {"name": "cars.png", "mimeType": "image/png", "buffer": b"not a picture"}
    tab.set_input_files('.parent[data-side="ordinary"] .file', file)
    tab.locator("#message", has_text="not a picture").wait_for()
    tab.route("**/draw?**", lambda route: route.abort())
    dial(tab, "intensity", 0.7)
    tab.locator("#message", has_text="make studio").wait_for()
    tab.unroute("**/draw?**")
    drawn(tab)
    assert tab.locator("#message").inner_text() == ""


def test_without_a_run_the_demo_is_offered(tab, make_studio, serve):
    code = "import sys; print('error: no space left, free some', file=sys.stderr); sys.exit(2)"
    tab.goto(serve(make_studio("nothing", [sys.executable, "-c", code])))
    tab.get_by_role("button", name="Train my own model").click()
    tab.locator("#demo-message", has_text="free some").wait_for()
    assert tab.get_by_role("button", name="Resume").is_enabled()
    assert tab.locator(".stages li").count() == 8


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(tab, studio, width):
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(f"{studio}?o=seed-3&o=seed-4&c=seed-5&i=0.5")
    drawn(tab)
    keep(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


# ---- accessibility ----


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The source of axe-core: the file named by CARFORGE_AXE, or by npm into a temporary folder."""
    if os.environ.get(AXE):
        return Path(os.environ[AXE]).read_text(encoding="utf-8")
    if not shutil.which("npm"):
        pytest.skip(f"no npm on the PATH to fetch axe-core with, and {AXE} names no axe.min.js")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "axe-core@4"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not fetch axe-core within two minutes")
    if done.returncode:
        pytest.skip(f"npm could not fetch axe-core: {done.stderr.strip()[-200:]}")
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


def violations(page: Any, axe: str) -> list[str]:
    """Serious and critical ones, with the first element of each."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations)")
    return [f"{one['id']}: {one['nodes'][0]['html'][:90]}" for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(tab, make_studio, serve, axe, scheme):
    tab.emulate_media(color_scheme=scheme)
    tab.goto(f"{serve(make_studio())}?o=seed-3&o=seed-4&c=seed-5&i=0.5")
    ready(tab)
    drawn(tab)
    tab.locator("#figures").wait_for()
    keep(tab)
    assert violations(tab, axe) == []
    for opener, dialog in (("#help-open", "#help"), ('.parent[data-side="concept"] [data-do="pick"]', "#gallery")):
        tab.click(opener)
        tab.locator(dialog).wait_for()
        assert violations(tab, axe) == [], dialog
        tab.keyboard.press("Escape")
    tab.goto(serve(make_studio("nothing")))
    assert violations(tab, axe) == []


def test_axe_sees_what_breaks(tab, studio, axe):
    """The check itself reports a missing label and a pale colour."""
    tab.goto(f"{studio}?o=seed-3&i=0.5")
    drawn(tab)
    tab.evaluate("document.querySelector('label[for=intensity]').remove()")
    tab.evaluate("document.querySelector('h1').style.color = '#ccc'")
    found = json.dumps(violations(tab, axe))
    assert "label" in found and "color-contrast" in found


def test_odd_keys_in_the_address_do_no_harm(studio, tab):
    tab.goto(f"{studio}?constructor=1&__proto__=2&toString=3&o=seed-4")
    ready(tab)
    assert drawn(tab).startswith("data:image/") and "o=seed-4" in tab.url
