"""Concept cars: where they are found is a provider's business, and providers are exchangeable.

A provider is a Source (scrapers/source.py): a name, and `find` that yields what is wanted.
"""

from pathlib import Path

from harness.errors import UserError
from harness.sources import ConceptRecipe
from scrapers.address_list import AddressList
from scrapers.commons import Commons
from scrapers.search import Search
from scrapers.source import Source


def make_provider(recipe: ConceptRecipe, src: Path | None) -> Source:
    """The provider that the recipe names. UserError when it lacks what it needs (a file, a key, a term)."""
    if recipe.provider == "list":
        if src is None:
            raise UserError("SRC: found nothing, allowed a file of picture addresses, try SRC=addresses.txt")
        return AddressList(src)
    if src is not None:
        raise UserError(f"SRC: found {src}, allowed with PROVIDER=list alone (here: {recipe.provider})")
    if recipe.provider == "search":
        return Search(recipe.terms, recipe.per_term)
    return Commons(recipe.categories, recipe.depth, recipe.width_px)
