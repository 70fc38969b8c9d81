"""`python -m scrapers SOURCE --set NAME`. Prints the set's folder on stdout, progress and counts on stderr."""

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
NO_CONTACT = "nobody@localhost.invalid"  # for imports, which send no requests
NETWORK_EXTRA = "scrape extra: {name} is missing, try pip install httpx2 protego stamina selectolax"


@app.command()
def scrape(
    source: Annotated[
        str, typer.Argument(help="kaggle, car_connection, concept, archive, folder, or the name of a recipe.")
    ],
    set_name: Annotated[str | None, typer.Option("--set", help="Name of the set; default: the recipe's.")] = None,
    src: Annotated[str | None, typer.Option(help="Zip, tar or folder to import; list of addresses.")] = None,
    contact: Annotated[str | None, typer.Option(help="Your e-mail address or page, sent to every server.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of pictures.")] = None,
    makes: Annotated[str | None, typer.Option(help="car_connection: only these makes, such as audi,bmw.")] = None,
    years: Annotated[str | None, typer.Option(help="car_connection: only these years, such as 2015,2019-2022.")] = None,
    size: Annotated[PictureSize | None, typer.Option(help="car_connection: size of the pictures.")] = None,
    provider: Annotated[Provider | None, typer.Option(help="concept: where to search.")] = None,
    categories: Annotated[str | None, typer.Option(help="concept, commons: categories, separated by commas.")] = None,
    depth: Annotated[int | None, typer.Option(help="concept, commons: levels of sub-categories.")] = None,
    width: Annotated[int | None, typer.Option(help="concept, commons: pixels; 0 = the originals.")] = None,
    terms: Annotated[str | None, typer.Option(help="concept, search: queries, separated by commas.")] = None,
    handle: Annotated[str | None, typer.Option(help="kaggle: owner/name.")] = None,
    layout: Annotated[
        LayoutName, typer.Option(help="archive, folder, kaggle: how folders are read; see data.layout.")
    ] = "auto",
    ignore: Annotated[
        str | None,
        typer.Option(help="archive, folder, kaggle: names to leave out, separated by commas; see data.ignore."),
    ] = None,
    config: Annotated[
        Path, typer.Option(help="File of recipes and politeness, in place of configs/sources.yaml.", show_default=False)
    ] = SOURCES_PATH,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Fetch one picture and report whether the pages have the expected shape; keep nothing."
        ),
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Fetch or import a set of pictures; the same command resumes where it stopped."""
    sources = load_sources(config)
    plan = make_plan(
        source, sources, set_name=set_name, src=src, limit=limit, makes=makes, years=years, size=size,
        provider=provider, categories=categories, depth=depth, width=width, terms=terms, handle=handle,
    )  # fmt: skip
    if dry_run:
        _print_plan(plan, sources, contact)
        return
    if check:
        print(run_check(plan, sources, contact))
        return
    options = ImportOptions(layout, None if ignore is None else comma_list(ignore))
    log(f"{plan.set_name}: {run_plan(plan, sources, contact, options)}")
    print(plan.folder.as_posix())


def run_plan(
    plan: CrawlPlan, sources: Sources, contact: str | None, options: ImportOptions | None = None
) -> FetchCounts:
    """Fetches or imports. UserError when no picture was found, Interrupted when the same command has more to do."""
    counts = _import(plan, sources, options) if plan.is_local else _fetch(plan, sources, contact)
    if not counts.done + counts.skipped:
        if counts.failed:
            raise Interrupted(f"{plan.set_name}: {counts}; none could be fetched, the same command tries again")
        why = f"; see {plan.folder / 'ledger.jsonl'} for the reasons" if counts.total else ""
        raise UserError(f"{plan.set_name}: found no picture ({counts}){why}")
    return counts


def run_check(plan: CrawlPlan, sources: Sources, contact: str | None) -> str:
    """Fetches one picture; one line about it. UserError when a page has changed. Nothing is kept."""
    if plan.is_local:
        raise UserError(f"CHECK: found SOURCE={plan.source}, which reads no page, allowed car_connection and concept")
    source, politeness = make_source(plan), make_politeness(sources.politeness, contact)
    _require_network_packages()
    from scrapers.check import check_source

    with _crawl_errors("nothing was kept"):
        return check_source(plan.source, source, politeness)


def make_source(plan: CrawlPlan) -> Source:
    """The source that finds the pictures. UserError when it lacks a file, a key or a term."""
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
            raise UserError("SRC: found nothing, allowed a file of picture URLs, try SRC=urls.txt")
        return UrlList(plan.src)
    if plan.src is not None:
        raise UserError(f"SRC: found {plan.src}, allowed only with PROVIDER=list (here: {provider})")
    if provider == "search":
        return Search(plan.recipe.terms, plan.recipe.per_term)
    return Commons(plan.recipe.categories, plan.recipe.depth, plan.recipe.width_px)


def _fetch(plan: CrawlPlan, sources: Sources, contact: str | None) -> FetchCounts:
    source, politeness = make_source(plan), make_politeness(sources.politeness, contact)
    _require_network_packages()
    from scrapers.crawl.fetch import Fetcher

    with _crawl_errors("fetched pictures are kept"), Fetcher(plan.folder, politeness) as fetcher:
        counts = fetcher.fetch_pictures(islice(source.find(fetcher), plan.limit), plan.limit)
        raise_if_incomplete(counts, fetcher.stopped)
    if isinstance(source, CarConnection) and source.unread:
        pages = f"{len(source.unread)} page{'s' * (len(source.unread) > 1)}"
        raise Interrupted(f"{plan.set_name}: {counts}; {pages} could not be fetched, the same command tries again")
    return counts


def _require_network_packages() -> None:
    try:
        import selectolax.lexbor  # noqa: F401

        import scrapers.crawl.fetch  # noqa: F401
    except ImportError as error:
        raise UserError(NETWORK_EXTRA.format(name=error.name)) from error


@contextmanager
def _crawl_errors(kept: str) -> Iterator[None]:
    """Errors that end a crawl as the command's own: exit code 75 if the same command resumes, else 2."""
    try:
        yield
    except HostStopped as error:
        raise Interrupted(f"{error}; {kept}, the same command resumes another day") from error
    except FetchError as error:
        if error.status == FAILED:
            raise Interrupted(f"{error}; {kept}, the same command resumes from here") from error
        raise UserError(f"{error}; {kept}") from error


def _import(plan: CrawlPlan, sources: Sources, options: ImportOptions | None) -> FetchCounts:
    """From this machine, or from Kaggle by its own client."""
    handle = plan.recipe.handle if isinstance(plan.recipe, KaggleRecipe) else None
    src, is_dump = plan.src, plan.source == "car_connection"
    if plan.source == "kaggle" and handle:
        src = download_dataset(handle)
    assert src is not None
    options = replace(options or ImportOptions(), class_from_make=is_dump)
    with PictureSet(plan.folder, make_politeness(sources.politeness, NO_CONTACT)) as pictures:
        if plan.source == "archive" or (is_dump and src.is_file()):
            return import_archive(src, pictures, options=options, limit=plan.limit)
        kind = "kaggle" if plan.source == "kaggle" else "folder"
        return import_folder(src, pictures, source=kind, options=options, limit=plan.limit, label=handle)


def _print_plan(plan: CrawlPlan, sources: Sources, contact: str | None) -> None:
    """The plan, and problems that show without a request or a write."""
    if not plan.is_local:
        make_source(plan)
    for line in plan.lines():
        print(f"# {line}")
    if not plan.is_local:
        try:
            print(f"#   as: {make_politeness(sources.politeness, contact).user_agent}")
        except UserError as error:
            print(f"#   as: nobody yet. {error}")


if __name__ == "__main__":
    run_command(app)
