"""Concept cars: where they are found is a provider's business, and providers are exchangeable.

A provider is a Source (scrapers/sites/source.py): a name, and `find` that yields what is wanted.
"""

from pathlib import Path

from harness.config.data_sources import ConceptRecipe
from harness.errors import UserError
from scrapers.sites.commons import Commons
from scrapers.sites.search import Search
from scrapers.sites.source import Source
from scrapers.sites.url_list import AddressList


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
