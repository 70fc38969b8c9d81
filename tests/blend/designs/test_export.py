"""An exported design is drawn again bit for bit by the command; with other weights it is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blend.designs.design_recipe import DesignRecipe, Parent
from blend.designs.export import design_document, design_png, document_to_picture, draw_command, read_documents
from blend.designs.session import NotInverted, open_session, picture_sha256
from harness.errors import UserError
from harness.images.decode import encode_png
from tests.commands import run_python
from tests.refusals import refused

RECIPE = DesignRecipe((Parent("seed-3"), Parent("seed-4", 0.5)), (Parent("seed-5"),), 0.43)


@pytest.fixture
def exported(run_folder):
    """(session, picture, document) of a mix of three cars."""
    session = open_session("tiny")
    picture = session.draw(RECIPE).picture
    return session, picture, design_document(session, RECIPE, session.measure(RECIPE, picture), "mine")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_command_reproduces_the_png_bit_for_bit(exported, threads):
    _, picture, document = exported
    Path("a.png").write_bytes(design_png(picture, document))
    Path("a.json").write_text(json.dumps(document))
    done = run_python("-m", "blend", "draw", "a.json", "--out", "b.png", threads=threads)
    assert (done.returncode, done.stdout) == (0, "b.png\n"), done.stderr
    assert Path("b.png").read_bytes() == Path("a.png").read_bytes()
    with Image.open("b.png") as image:
        assert np.array_equal(np.asarray(image), picture)


def test_the_png_alone_and_a_whole_shelf_are_drawn_again(exported):
    _, picture, document = exported
    Path("a.png").write_bytes(design_png(picture, document))
    assert draw_command(Path("a.png"), None) == [Path("a-drawn.png")]
    assert Path("a-drawn.png").read_bytes() == Path("a.png").read_bytes()
    Path("shelf.json").write_text(json.dumps([document, document]))
    for _ in range(2):  # its own are replaced
        assert draw_command(Path("shelf.json"), Path("out/d.png")) == [Path("out/d-00.png"), Path("out/d-01.png")]
    Path("precious.txt").write_text("mine")
    with pytest.raises(UserError, match="^OUT: found precious.txt, a file that this command did not write, allowed"):
        draw_command(Path("a.png"), Path("precious.txt"))
    assert Path("precious.txt").read_text() == "mine"
    for force in (False, True):
        with pytest.raises(UserError, match="^OUT: found a.png, which is the source"):
            draw_command(Path("a.png"), Path("a.png"), force)
    assert draw_command(Path("a.png"), Path("precious.txt"), force=True) == [Path("precious.txt")]


def test_truncation_is_in_the_design_and_in_what_draws_it_again(exported):
    session, picture, _ = exported
    drawn = {share: session.draw(replace(RECIPE, truncation=share)).picture for share in (1.0, 0.5, 0.0)}
    assert np.array_equal(drawn[1.0], picture) and not np.array_equal(drawn[0.5], picture)
    others = DesignRecipe((Parent("seed-8"),), (Parent("seed-9"),), RECIPE.intensity, truncation=0.0)
    assert np.array_equal(session.draw(others).picture, drawn[0.0]), "all cars end as the mean car"
    document = design_document(session, replace(RECIPE, truncation=0.5), None, "")
    assert "t=0.5" in document["recipe"]
    assert np.array_equal(document_to_picture(session, document), drawn[0.5])


def test_incomplete_and_changed_designs_are_refused(exported):
    session, _, document = exported
    with pytest.raises(UserError, match="other weights"):
        document_to_picture(session, {**document, "generators": {"base": "0" * 64, "tuned": None}})
    short = {**document, "latents": {**document["latents"], "ordinary": [0.0]}}
    for broken in (short, {**document, "form": "x"}, {key: document[key] for key in ("form", "generators")}):
        with pytest.raises(UserError, match="design: "):
            document_to_picture(session, broken)
    latents, setting = document["latents"], document["setting"]
    numbers = len(latents["ordinary"])
    odd = [[1], "x", None, {}, {**latents, "ordinary": None}, {**latents, "ordinary": [[]] * numbers}]
    odd += [{**latents, "concept": [float("nan")] * numbers}, {**latents, "restyled": ["1"] * numbers}]
    spoiled = [{"latents": one} for one in odd] + [{"setting": {**setting, "style": 2}}, {"interpolation": []}]
    for change in spoiled:
        with refused("design: is incomplete"):
            document_to_picture(session, {**document, **change})
    document["setting"]["latent_weight"] = 0.9
    Path("moved.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="differs from the exported one"):
        draw_command(Path("moved.json"), None)
    plain = encode_png(np.zeros((8, 8, 3), np.uint8))
    others = {"a.txt": b"no", "b.png": b"\x89PNG no", "c.json": b"[]", "d.json": b"[1]", "plain.png": plain}
    for name, content in others.items():
        Path(name).write_bytes(content)
        with pytest.raises(UserError, match="no design"):
            read_documents(Path(name))


def test_a_target_futurism_is_reached_or_the_nearest_is_drawn(run_folder):
    session = open_session("tiny")
    measures = session.open_measures()
    assert measures is not None
    pair = (Parent("seed-3"),), (Parent("seed-5"),)
    reach = session.draw(DesignRecipe(*pair, futurism=0.0)).score_range
    assert reach is not None and reach[0] < reach[1]
    for target in (reach[0] - 50, sum(reach) / 2, reach[1] + 50):
        drawn = session.draw(DesignRecipe(*pair, futurism=target))
        score = measures.futurism(drawn.picture[None])[0]
        assert abs(score - min(max(target, reach[0]), reach[1])) < 0.1 * (reach[1] - reach[0])


def test_sweep_and_single_designs_are_the_same_pictures(run_folder):
    session = open_session("tiny")
    places, pictures = session.sweep(RECIPE)
    for place, picture in zip(places, pictures, strict=True):
        one = DesignRecipe(RECIPE.ordinary, RECIPE.concept, place)
        assert picture_sha256(session.draw(one).picture) == picture_sha256(picture)


def test_a_parent_without_a_latent_is_requested(run_folder):
    session = open_session("tiny")
    reference = session.parent_store.held_out["ordinary"].names[1]
    with pytest.raises(NotInverted, match=reference):
        session.draw(DesignRecipe((Parent(reference),)))
    calls = []
    found = session.parent_store.search("ordinary", reference, None, lambda *now: calls.append(now))
    (first, *_), (last, of, drawn, error) = calls[0], calls[-1]
    assert first == 0 and last == of == 2 * session.config.inversion.steps
    assert drawn.shape == (32, 32, 3) and error == pytest.approx(error) and found.error is not None
    again = open_session("tiny").parent_store.find("ordinary", reference)  # on disk
    assert again is not None and (again.z == found.z).all() and (again.restyled == found.restyled).all()
    session.draw(DesignRecipe((Parent(reference),)))
