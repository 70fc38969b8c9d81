"""A recipe and its query are equivalent; malformed queries are refused in one line."""

from urllib.parse import parse_qsl

import pytest
import torch

from blend.designs.design_recipe import MAX_PARENTS, DesignRecipe, Parent, check_reference, query_to_recipe
from harness.errors import UserError
from harness.runtime.latent_space import LatentSpace
from tests.refusals import refused

FILE = "file-" + "ab" * 32


@pytest.mark.parametrize(
    "recipe",
    [
        DesignRecipe((Parent("seed-1"),)),
        DesignRecipe(
            (Parent(FILE, 0.5), Parent("valid-00003")), (Parent("seed-9", 2.0),), 0.25, 1.0, None, "Audi & Söhne"
        ),
        DesignRecipe((Parent("valid-00003"),), (), 0.5, None, -12.5),
        DesignRecipe((Parent("seed-1"),), truncation=0.7),
    ],
)
def test_a_recipe_survives_its_query(recipe):
    assert query_to_recipe(parse_qsl(recipe.to_query())) == recipe


def test_equal_recipes_have_equal_hashes_and_others_do_not():
    texts = [
        "o=seed-1",
        "o=seed-2",
        "o=seed-1&c=seed-2",
        "o=seed-1&i=0.4",
        "o=seed-1&s=0.5",
        "o=seed-1&f=50",
        "o=seed-1&t=0.7",
        "c=seed-1&o=seed-2",
    ]
    assert len({query_to_recipe(parse_qsl(text)).sha256 for text in texts}) == len(texts)
    first, second = (query_to_recipe(parse_qsl(text)) for text in ("i=0.50&o=seed-1:1&tab=x&t=1", "o=seed-1"))
    assert first.sha256 == second.sha256 and "t=" not in second.to_query(), "links from before truncation are unchanged"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "ordinary parent"),
        ("o=../../etc/passwd", "parent"),
        ("o=file-..%2f..%2fetc", "parent"),
        ("o=seed-01", "parent"),
        ("o=seed-1&i=nan", "i: found 'nan'"),
        ("o=seed-1&i=1.01", "allowed a number from 0 to 1"),
        ("o=seed-1&s=inf", "s: found"),
        ("o=seed-1:0", "o: found '0'"),
        ("&".join(["o=seed-1"] * (MAX_PARENTS + 1)), "allowed up to 4"),
    ],
)
def test_malformed_queries_are_refused(text, message):
    with refused(message):
        query_to_recipe(parse_qsl(text))


@pytest.mark.parametrize("text", ["seed-1\n", "seed-" + "9" * 10, "FILE-" + "ab" * 32, "file-" + "AB" * 32, "valid-1"])
def test_references_have_one_form(text):
    with pytest.raises(UserError):
        check_reference(text)


def test_several_latents_are_averaged_in_proportion():
    z = [torch.randn(1, 8) for _ in range(3)]
    expected = (2 * z[0] + z[1] + z[2]) / 4
    assert torch.allclose(LatentSpace(8).average(z, [2.0, 1.0, 1.0]), expected, atol=1e-6)
    assert torch.equal(LatentSpace(8).average(z[:1], [0.3]), z[0])
    half = LatentSpace(8).mix(z[0], z[1], torch.tensor([0.5]), "slerp")
    assert torch.allclose(LatentSpace(8).average(z[:2], [1.0, 1.0], "slerp"), half, atol=1e-6)
