"""A set's folder to import into, and what lies in it afterwards. For tests of archives and folders."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

from PIL import Image

from scrapers.crawl.picture_set import PictureSet
from scrapers.crawl.politeness import Manners

NOBODY = Manners.model_validate({"contact": "nobody@localhost.invalid"})


class LocalSet:
    """`with local.pictures() as pictures: import_…(path, pictures)`; then `lines`, by the name inside the source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pictures(self) -> PictureSet:
        return PictureSet(self.folder, NOBODY)

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "ledger.jsonl").read_text().splitlines()]

    @property
    def last(self) -> dict[str, dict]:
        return {line["url"].partition("#")[2]: line for line in self.lines}

    @property
    def refused(self) -> dict[str, str]:
        """Name → the reason's slug."""
        bad = {name: line for name, line in self.last.items() if line["status"] == "refused"}
        return {name: line["reason"].partition(":")[0] for name, line in bad.items()}

    @property
    def good(self) -> list[str]:
        return sorted(name for name, line in self.last.items() if line["status"] == "done")

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "files").rglob("*") if path.is_file())


def a_picture(shade: int = 0, kind: str = "JPEG", size: tuple[int, int] = (24, 16)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, (shade % 256, shade // 256, 90)).save(content, kind)
    return content.getvalue()


def tree_of(folder: Path) -> dict[str, int]:
    """Everything below a folder, with sizes: to see that nothing else was touched."""
    return {path.relative_to(folder).as_posix(): path.lstat().st_size for path in sorted(folder.rglob("*"))}


def zip_of(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # pyright: ignore
        for info, content in members:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(content) or info.size
            archive.addfile(info, io.BytesIO(content) if content else None)
    return path
