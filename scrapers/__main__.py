"""`python -m scrapers SOURCE --set NAME`. The set's folder goes to stdout, progress and what came of it to stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import DryRunOption, make_app, run_command
from harness.config.data_sources import (
    SOURCES_PATH,
    CarConnectionRecipe,
    ConceptRecipe,
    KaggleRecipe,
    PictureSize,
    Provider,
    Sources,
    load_sources,
)
from harness.errors import Interrupted, UserError
from harness.images.layout import LayoutName
from harness.messages import log
from scrapers.crawl.picture_set import PictureSet
from scrapers.crawl.politeness import make_politeness
from scrapers.crawl.records import FAILED, FetchCounts, FetchError, HostStopped, raise_if_incomplete
from scrapers.local.archive import import_archive
from scrapers.local.folder import import_folder
from scrapers.local.importer import ImportOptions
from scrapers.plan import CrawlPlan, comma_list, make_plan
from scrapers.sites.car_connection import CarConnection
from scrapers.sites.commons import Commons
from scrapers.sites.kaggle import download_dataset
from scrapers.sites.search import Search
from scrapers.sites.source import Source
from scrapers.sites.url_list import UrlList

app = make_app("Pictures from the outside world into data/raw/<set>/.")
NOBODY = "nobody@localhost.invalid"  # where nothing is asked of anybody
NETWORK_EXTRA = "scrape extra: {name} is missing, try pip install httpx2 protego stamina selectolax"


@app.command()
def scrape(
    source: Annotated[
        str, typer.Argument(help="kaggle, car_connection, concept, archive, folder, or a recipe's name.")
    ],
    set_name: Annotated[str | None, typer.Option("--set", help="Name of the set; the recipe's if not given.")] = None,
    src: Annotated[str | None, typer.Option(help="Zip, tar or folder to import; list of addresses.")] = None,
    contact: Annotated[str | None, typer.Option(help="Your e-mail address or page, told to every server.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many pictures at most.")] = None,
    makes: Annotated[str | None, typer.Option(help="car_connection: only these, as in audi,bmw.")] = None,
    years: Annotated[str | None, typer.Option(help="car_connection: only these, as in 2015,2019-2022.")] = None,
    size: Annotated[PictureSize | None, typer.Option(help="car_connection: size of the pictures.")] = None,
    provider: Annotated[Provider | None, typer.Option(help="concept: where to look.")] = None,
    categories: Annotated[str | None, typer.Option(help="concept, commons: categories, with commas.")] = None,
    depth: Annotated[int | None, typer.Option(help="concept, commons: levels of sub-categories.")] = None,
    width: Annotated[int | None, typer.Option(help="concept, commons: pixels; 0 = the originals.")] = None,
    terms: Annotated[str | None, typer.Option(help="concept, search: what to search for, with commas.")] = None,
    handle: Annotated[str | None, typer.Option(help="kaggle: owner/name.")] = None,
    layout: Annotated[
        LayoutName, typer.Option(help="archive, folder, kaggle: how folders are read, as data.layout.")
    ] = "auto",
    ignore: Annotated[
        str | None, typer.Option(help="The same: names that are left out, with commas, as data.ignore.")
    ] = None,
    config: Annotated[
        Path, typer.Option(help="Recipes and politeness, in place of configs/sources.yaml.", show_default=False)
    ] = SOURCES_PATH,
    check: Annotated[
        bool, typer.Option("--check", help="Fetch one picture, say whether the pages are as expected, keep nothing.")
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Fetch or import a set of pictures; the same command goes on where it stopped."""
    sources = load_sources(config)
    plan = make_plan(
        source, sources, set_name=set_name, src=src, limit=limit, makes=makes, years=years, size=size,
        provider=provider, categories=categories, depth=depth, width=width, terms=terms, handle=handle,
    )  # fmt: skip
    if dry_run:
        _show(plan, sources, contact)
        return
    if check:
        print(run_check(plan, sources, contact))
        return
    reading = ImportOptions(layout, None if ignore is None else comma_list(ignore))
    tally = run_plan(plan, sources, contact, reading)
    log(f"{plan.set_name}: {tally}")
    print(plan.folder.as_posix())


def run_plan(
    plan: CrawlPlan, sources: Sources, contact: str | None, reading: ImportOptions | None = None
) -> FetchCounts:
    """Does it. UserError when not one picture was to be had, Interrupted when the same command has more to do.

    `reading`: how the folders of what is imported are read."""
    tally = _import(plan, sources, reading) if plan.is_local else _fetch(plan, sources, contact)
    if not tally.done + tally.skipped:
        if tally.failed:
            raise Interrupted(f"{plan.set_name}: {tally}; none could be had, the same command tries again")
        why = f"; {plan.folder / 'ledger.jsonl'} says why" if tally.total else ", and nothing that was refused as one"
        raise UserError(f"{plan.set_name}: found no picture ({tally}){why}")
    return tally


def run_check(plan: CrawlPlan, sources: Sources, contact: str | None) -> str:
    """What came of fetching one picture; UserError when a page is not what it was. Nothing is written."""
    if plan.is_local:
        raise UserError(f"CHECK: found SOURCE={plan.source}, which reads no page, allowed car_connection and concept")
    source, politeness = make_source(plan), make_politeness(sources.politeness, contact)
    _need_network_packages()
    from scrapers.check import check_source

    with _crawl_errors("nothing was kept"):
        return check_source(plan.source, source, politeness)


def make_source(plan: CrawlPlan) -> Source:
    """Where the pictures are looked for. UserError when the source lacks what it needs (a file, a key, a term)."""
    if isinstance(plan.recipe, CarConnectionRecipe):
        return CarConnection(
            picture_size=plan.recipe.picture_size,
            makes=plan.makes,
            years=plan.years,
            years_per_model=plan.recipe.years_per_model,
            pictures_per_car=plan.recipe.pictures_per_car,
            leave_out=tuple(plan.recipe.leave_out),
        )
    assert isinstance(plan.recipe, ConceptRecipe)
    provider = plan.recipe.provider
    if provider == "list":
        if plan.src is None:
            raise UserError("SRC: found nothing, allowed a file of picture addresses, try SRC=addresses.txt")
        return UrlList(plan.src)
    if plan.src is not None:
        raise UserError(f"SRC: found {plan.src}, allowed with PROVIDER=list alone (here: {provider})")
    if provider == "search":
        return Search(plan.recipe.terms, plan.recipe.per_term)
    return Commons(plan.recipe.categories, plan.recipe.depth, plan.recipe.width_px)


def _fetch(plan: CrawlPlan, sources: Sources, contact: str | None) -> FetchCounts:
    source, politeness = make_source(plan), make_politeness(sources.politeness, contact)
    _need_network_packages()
    from scrapers.crawl.fetch import Fetcher

    with _crawl_errors("what is fetched is kept"), Fetcher(plan.folder, politeness) as fetcher:
        tally = fetcher.fetch_pictures(islice(source.find(fetcher), plan.limit), plan.limit)
        raise_if_incomplete(tally, fetcher.stopped)
    if isinstance(source, CarConnection) and source.unread:
        pages = f"{len(source.unread)} page{'s' * (len(source.unread) > 1)}"
        raise Interrupted(f"{plan.set_name}: {tally}; {pages} could not be had, the same command asks again")
    return tally


def _need_network_packages() -> None:
    try:
        import selectolax.lexbor  # noqa: F401

        import scrapers.crawl.fetch  # noqa: F401
    except ImportError as error:
        raise UserError(NETWORK_EXTRA.format(name=error.name)) from error


@contextmanager
def _crawl_errors(kept: str) -> Iterator[None]:
    """What ends a crawl, as the command says it: exit code 75 where the same command goes on, else 2."""
    try:
        yield
    except HostStopped as error:
        raise Interrupted(f"{error}; {kept}, the same command goes on another day") from error
    except FetchError as error:
        if error.status == FAILED:
            raise Interrupted(f"{error}; {kept}, the same command goes on from here") from error
        raise UserError(f"{error}; {kept}") from error


def _import(plan: CrawlPlan, sources: Sources, reading: ImportOptions | None) -> FetchCounts:
    """From this machine, or from Kaggle by its own client."""
    handle = plan.recipe.handle if isinstance(plan.recipe, KaggleRecipe) else None
    src, dump = plan.src, plan.source == "car_connection"
    if plan.source == "kaggle" and handle:
        src = download_dataset(handle)
    assert src is not None
    reading = replace(reading or ImportOptions(), always_make=dump)
    with PictureSet(plan.folder, make_politeness(sources.politeness, NOBODY)) as pictures:
        if plan.source == "archive" or (dump and src.is_file()):
            return import_archive(src, pictures, reading=reading, limit=plan.limit)
        kind = "kaggle" if plan.source == "kaggle" else "folder"
        return import_folder(src, pictures, source=kind, reading=reading, limit=plan.limit, label=handle)


def _show(plan: CrawlPlan, sources: Sources, contact: str | None) -> None:
    """The plan, with all that can be known without touching anything or asking anybody."""
    looked = None if plan.is_local else make_source(plan)
    for line in plan.lines():
        print(f"# {line}")
    if looked is not None:
        try:
            print(f"#   as: {make_politeness(sources.politeness, contact).user_agent}")
        except UserError as error:
            print(f"#   as: nobody yet. {error}")


if __name__ == "__main__":
    run_command(app)
