"""`python -m scrapers`: folder on stdout, messages on stderr, exit codes, dry runs."""

import signal
import socket
import sys

import pytest

from harness.cli import STOP_SIGNALS, run_command
from harness.config.data_sources import SOURCES_PATH, load_sources
from harness.errors import UserError
from scrapers.__main__ import app, make_source
from scrapers.plan import make_plan, text_to_years
from scrapers.sites.car_connection import CarConnection
from tests.commands import python_at_work, wait_until
from tests.scrapers.faulty_site import CONTACT
from tests.scrapers.local.local_set import LocalSet, tree_of, write_pictures


@pytest.fixture(autouse=True)
def cars(workplace, tmp_path):
    """A folder of four pictures. What the commands do with signals is taken back."""
    write_pictures(tmp_path / "cars", "audi/1.jpg", "audi/2.jpg", "bmw/3.jpg", "bmw/4.jpg")
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def call(*arguments: str) -> int:
    """The command in this process; → its exit code."""
    try:
        run_command(lambda: app([*arguments], standalone_mode=False))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def error_line(capsys) -> str:
    text = capsys.readouterr().err.strip()
    assert text.startswith("error: ") and "\n" not in text, text
    return text


def test_a_folder_is_imported_and_its_set_named(capsys):
    assert call("folder", "--src", "cars", "--set", "mine") == 0
    out, err = capsys.readouterr()
    assert out == "data/raw/mine\n"
    assert "mine: 4 good, 0 failed, 0 gone, 0 refused, 0 skipped" in err
    assert call("folder", "--src", "cars") == 0 and capsys.readouterr().out == "data/raw/cars\n"
    assert call("folder", "--src", "cars", "--set", "mine", "--limit", "2") == 0
    assert "2 skipped" in capsys.readouterr().err


def test_only_what_asks_the_network_needs_its_packages(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("scrapers.crawl.")]:
        if name.rpartition(".")[2] in ("client", "fetch", "loop_thread", "page", "response", "robots", "ssrf_guard"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    assert call("folder", "--src", "cars") == 0
    assert call("car_connection", "--contact", CONTACT) == 2
    assert "scrape extra: httpx2 is missing, try pip install httpx2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gooogle"], "SOURCE: found 'gooogle', allowed kaggle, car_connection, concept, archive, folder, brands50"),
        (["cifar10"], "make dataset SET=cifar10"),
        (["folder"], "SRC: found nothing, allowed a folder of pictures"),
        (["archive"], "SRC: found nothing, allowed a zip or tar of pictures"),
        (["folder", "--src", "nowhere"], "SRC: found nothing at nowhere"),
        (["archive", "--src", "cars"], "SRC: found cars, allowed a zip or tar with SOURCE=archive, try SOURCE=folder"),
        (["folder", "--src", "cars", "--set", "../x"], "NAME: found '../x'"),
        (["folder", "--src", "."], "overlaps the set's folder"),
        (
            ["folder", "--src", "cars", "--makes", "audi"],
            "found 'audi' with SOURCE=folder, allowed with SOURCE=car_connection",
        ),
        (["concept", "--size", "lrg"], "SIZE: found 'lrg' with SOURCE=concept, allowed with SOURCE=car_connection"),
        (["concept", "--width", "777"], "width_px: found 777, allowed 250, 330"),
        (["concept", "--handle", "a/b"], "HANDLE: found 'a/b' with SOURCE=concept, allowed with SOURCE=kaggle"),
        (["kaggle", "--handle", "nonsense"], "handle: found 'nonsense'"),
        (["kaggle", "--src", "cars"], "SOURCE=archive"),
        (["folder", "--src", "cars.zip", "--dry-run"], "SRC: found cars.zip, allowed a folder with SOURCE=folder"),
        (["car_connection", "--makes", " , "], "MAKES: found ' , ', allowed makes with commas"),
        (["car_connection", "--years", "2022-2019"], "YEARS: found '2022-2019'"),
        (["car_connection"], "contact: found none"),
        (["concept"], "contact: found none"),
        (["concept", "--contact", "me"], "contact"),
        (["concept", "--provider", "list"], "SRC: found nothing, allowed a file of picture URLs"),
        (["concept", "--provider", "search"], "found no BRAVE_SEARCH_API_KEY"),
        (["concept", "--src", "cars"], "SRC: found cars, allowed only with PROVIDER=list"),
        (["folder", "--src", "cars", "--config", "nowhere.yaml"], "cannot read nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2_and_nothing_is_touched(tmp_path, capsys, arguments, message):
    (tmp_path / "cars.zip").write_bytes(b"PK")
    before = tree_of(tmp_path)
    assert call(*arguments) == 2
    assert message in error_line(capsys)
    assert {name for name in tree_of(tmp_path) if not name.startswith("data")} == set(before)
    assert not list(tmp_path.glob("data/raw/*/ledger.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        (["kaggle"], "handle: yamaerenay/100-images-of-top-50-car-brands"),
        (["brands50", "--set", "other"], "set other: kaggle into data/raw/other"),
        (
            ["car_connection", "--makes", "audi, bmw", "--years", "2019-2021", "--size", "med"],
            "years: 2019, 2020, 2021",
        ),
        (["car_connection", "--src", "cars"], "src: cars"),
        (["concept", "--contact", CONTACT], f"as: carforge/0.1.0 (+{CONTACT})"),
        (["concept", "--categories", "A, B", "--depth", "1", "--width", "0"], "categories: A, B"),
        (["concept", "--provider", "list", "--src", "list.txt"], "as: nobody yet. contact: found none"),
        (["archive", "--src", "cars.zip"], "set cars: archive into data/raw/cars"),
        (["folder", "--src", "cars", "--limit", "7"], "limit: 7"),
    ],
)
def test_a_dry_run_shows_the_plan_and_touches_nothing(tmp_path, capsys, monkeypatch, arguments, shows):
    (tmp_path / "list.txt").write_text("https://a.example/1.jpg\n")
    (tmp_path / "cars.zip").write_bytes(b"PK")
    before = tree_of(tmp_path)
    for owner, name in ((socket, "getaddrinfo"), (socket.socket, "connect")):
        monkeypatch.setattr(owner, name, lambda *_: pytest.fail("the network was used"))
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert call(*arguments, "--dry-run") == 0
    out = capsys.readouterr().out
    assert all(line.startswith("# ") for line in out.splitlines())
    assert f"# {shows}\n" in out or f"#   {shows}" in out
    assert tree_of(tmp_path) == before


def test_nothing_but_other_files_is_an_error_not_an_empty_set(tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jpg").write_text("no picture")
    assert call("folder", "--src", "texts") == 2
    assert "texts: found no picture (0 good, 0 failed, 0 gone, 1 refused, 0 skipped)" in error_line(capsys)


@pytest.mark.parametrize(
    ("text", "years"),
    [("2019", {2019}), ("2019-2021", {2019, 2020, 2021}), (" 2015, 2019 - 2020 ", {2015, 2019, 2020})],
)
def test_years(text, years):
    assert text_to_years(text) == years


@pytest.mark.parametrize("text", ["", ",", "19", "2019-", "2020-2019", "a", "2019;2020"])
def test_no_years(text):
    with pytest.raises(UserError, match="^YEARS: "):
        text_to_years(text)


def test_sets_are_named_after_what_is_imported(tmp_path):
    sources = load_sources(SOURCES_PATH)
    for name in ("My cars (new).tar.gz", "b.ZIP"):
        (tmp_path / name).touch()
    assert make_plan("archive", sources, src="My cars (new).tar.gz").set_name == "My_cars_new"
    assert make_plan("archive", sources, src="b.ZIP").set_name == "b"
    assert make_plan("car_connection", sources, src="b.ZIP").set_name == "car_connection"


def test_a_signal_ends_it_with_exit_75_and_the_same_command_goes_on(tmp_path):
    write_pictures(tmp_path / "many", *(f"{number:04}.jpg" for number in range(1500)))
    ledger = tmp_path / "data" / "raw" / "many" / "ledger.jsonl"
    with python_at_work("-m", "scrapers", "folder", "--src", "many") as running:
        wait_until(lambda: ledger.exists() and ledger.stat().st_size > 20_000, "some of the pictures")
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (75, ""), err
    kept = len(LocalSet(ledger.parent).good)
    assert 0 < kept < 1500 and "resumes from here" in err
    assert call("folder", "--src", "many", "--limit", str(kept + 5)) == 0
    assert len(LocalSet(ledger.parent).good) == kept + 5


def test_make_source_takes_everything_from_the_plan():
    sources = load_sources(SOURCES_PATH)
    plan = make_plan("car_connection", sources, makes="audi,bmw", years="2019", size="sml")
    source = make_source(plan)
    assert isinstance(source, CarConnection)
    assert (source.makes, source.years, source.picture_size) == (("audi", "bmw"), {2019}, "sml")
    assert (source.years_per_model, source.pictures_per_car) == (8, 150) and "interior" in source.leave_out
