"""A set's folder to import into, and what lies in it afterwards. For tests of archives and folders."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from scrapers.crawl.picture_set import PictureSet
from scrapers.crawl.politeness import Politeness
from scrapers.crawl.records import FetchCounts
from tests.harness.pictures import encoded

NOBODY = Politeness.model_validate({"contact": "nobody@localhost.invalid"})
GOOD = "data/audi/good.jpg"
SEED_NAME = "Audi_A5_2013_43_18_210_20_4_73_54_182_24_FWD_4_2_Convertible_eUH.jpg"  # as the dump calls its files


class LocalSet:
    """After `local.take(import_…, path)`: `lines`, by the name inside the source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pictures(self) -> PictureSet:
        return PictureSet(self.folder, NOBODY)

    def take(self, import_from: Callable[..., FetchCounts], path: Path, **options: Any) -> FetchCounts:
        with self.pictures() as held:
            return import_from(path, held, **options)

    @property
    def lines(self) -> list[dict]:
        return lines_of(self.folder)

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


def lines_of(folder: Path) -> list[dict]:
    """A set's ledger."""
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def a_picture(shade: int = 0, kind: str = "JPEG", size: tuple[int, int] = (24, 16)) -> bytes:
    return encoded(Image.new("RGB", size, (shade % 256, shade // 256, 90)), kind)


def write_pictures(folder: Path, *names: str) -> None:
    """Pictures of these names, each another, of the kinds that the endings say."""
    kinds = {".png": "PNG", ".webp": "WEBP"}
    for shade, path in enumerate(folder / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(a_picture(shade, kinds.get(path.suffix, "JPEG")))


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
