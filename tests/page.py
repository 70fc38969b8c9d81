"""A page of ours, taken apart: its tags, what it says in which section, and that all that is opened is closed."""

from html.parser import HTMLParser
from pathlib import Path

NEVER_CLOSED = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """`tags`: with their attributes; `texts`: by the id of the last of `sections` that has begun, "" before them."""

    def __init__(self, path: Path, *sections: str) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.sections, self.section, self.texts = sections, "", {}
        self.feed(self.html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in NEVER_CLOSED:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        found = {key: value or "" for key, value in attrs}
        self.tags.append((tag, found))
        if found.get("id") in self.sections:
            self.section = found["id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts[self.section] = self.texts.get(self.section, "") + " " + " ".join(data.split())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts.values()).split())

    def having(self, tag: str, name: str = "") -> list[dict[str, str]]:
        """The attributes of each such tag that has this one."""
        return [found for kind, found in self.tags if kind == tag and (not name or name in found)]
