"""A file of URLs: plain, or a table with metadata; bad lines are reported by number."""

import pytest

from harness.errors import UserError
from scrapers.crawl.records import PictureItem
from scrapers.sites.url_list import UrlList
from tests.scrapers.sites.static_pages import StaticPages


def wanted_of(tmp_path, text: str, name: str = "list.txt") -> list[PictureItem]:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8"))
    return list(UrlList(path).find(StaticPages({})))


def test_one_address_a_line(tmp_path):
    text = "\ufeff# concept cars\n\n  https://a.example/1.jpg  \r\nhttp://b.example/x,y?z=1#2\n   # another\n"
    assert wanted_of(tmp_path, text) == [
        PictureItem("https://a.example/1.jpg", "list"),
        PictureItem("http://b.example/x,y?z=1#2", "list"),
    ]


def test_a_table_with_classes_and_licences(tmp_path):
    text = (
        "license,URL,class,author,page,title\n"
        '"CC BY 4.0, edited",https://a.example/1.jpg,audi,Jane,https://a.example/,"A ""show"" car"\n'
        ",https://a.example/2.jpg,,,,\n"
    )
    assert wanted_of(tmp_path, text, "list.csv") == [
        PictureItem(
            "https://a.example/1.jpg",
            "list",
            page="https://a.example/",
            class_name="audi",
            license="CC BY 4.0, edited",
            author="Jane",
            title='A "show" car',
        ),
        PictureItem("https://a.example/2.jpg", "list"),
    ]


def test_bad_lines_are_told_with_their_numbers_all_at_once(tmp_path):
    text = "https://a.example/1.jpg\n# fine\nfoo.jpg\n\nftp://a.example/2.jpg\nhttps://a b.example/\nhttp://x:99999x/\n"
    with pytest.raises(UserError) as raised:
        wanted_of(tmp_path, text)
    lines = str(raised.value).splitlines()
    assert "4 bad lines of 5" in lines[0]
    assert [line.strip().partition(":")[0] for line in lines[1:]] == ["line 3", "line 5", "line 6", "line 7"]
    assert "found 'foo.jpg', allowed a URL that begins with https://" in lines[1]


def test_bad_rows_of_a_table(tmp_path):
    with pytest.raises(UserError, match=r"line 3: found 3 cells, allowed 2 as in the header"):
        wanted_of(tmp_path, "url,class\nhttps://a.example/1.jpg,audi\nhttps://a.example/2.jpg,a,b\n")
    with pytest.raises(UserError, match=r"line 1: found the columns colour, allowed each of url, class"):
        wanted_of(tmp_path, "url,colour\nhttps://a.example/1.jpg,red\n")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_table_that_a_spreadsheet_wrote(tmp_path, delimiter, encoding):
    rows = [["url", "class", "author"], ["https://a.example/1.jpg", "audi", "'=Jos\u00e9"], ["https://a.example/2.jpg"]]
    path = tmp_path / "list.csv"
    path.write_bytes("\r\n".join(delimiter.join(row) for row in rows).encode(encoding))
    found = [(one.class_name, one.author) for one in UrlList(path).items]
    assert found == [("audi", "=Jos\u00e9"), (None, None)]


def test_thousands_of_bad_lines_are_told_in_short(tmp_path):
    with pytest.raises(UserError) as raised:
        wanted_of(tmp_path, "x\n" * 5000)
    assert len(str(raised.value).splitlines()) == 22 and "and 4980 more" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe\x00", None])
def test_no_list(tmp_path, content):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="^SRC: "):
        UrlList(path)
