"""Published weights: found locally, or downloaded once, and verified."""

import hashlib
import io
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from harness.errors import UserError, reason_of
from harness.files import read_file
from harness.messages import log
from harness.storage.atomic import atomic_file

TIMEOUT_SEC = 30.0
CHUNK_BYTES = 1 << 20
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights.

    Attributes:
        names: the first is the file of `url`; others have the same layers in another form.
        url: of the first; "" if it cannot be downloaded.
        sha256: name → first digits of its sha256.
        max_mb: larger downloads are aborted.
        advice: appended to the error for a file with another sha256.
    """

    names: tuple[str, ...]
    url: str
    sha256: dict[str, str]
    max_mb: int = 200
    advice: str = ""

    def find(self) -> Path | None:
        """The first existing file, in $CARFORGE_WEIGHTS or torch's cache ($TORCH_HOME/hub/checkpoints)."""
        places = (folder / name for folder in weights_folders() for name in self.names)
        return next((path for path in places if path.is_file()), None)

    def read(self, may_download: bool = True) -> tuple[Path, bytes, str]:
        """(file, content, verified sha256). UserError when it is damaged or cannot be downloaded."""
        path = self.find()
        if path is None:
            if not (self.url and may_download):
                raise UserError(f"{self.names[0]}: not found; {self.remedy()}")
            path = self._download()
        content, found = self.read_content(path)
        expected = self.sha256[path.name]
        if not found.startswith(expected):
            advice = f"remove it; {self.remedy()}{self.advice.format(path=path)}"
            raise UserError(f"{path}: found sha256 {found[:8]}…, allowed {expected[:8]}…; {advice}")
        return path, content, found

    def read_content(self, path: Path) -> tuple[bytes, str]:
        """A file's content and sha256."""
        try:
            content = read_file(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); {self.remedy()}") from error
        return content, hashlib.sha256(content).hexdigest()

    def remedy(self) -> str:
        folders = " or ".join(str(folder) for folder in weights_folders())
        source = f", from {self.url}" if self.url else ""
        return f"put {' or '.join(self.names)} into {folders} (CARFORGE_WEIGHTS may name another folder){source}"

    def _download(self) -> Path:
        name, digest = self.names[0], hashlib.sha256()
        path = weights_folders()[-1] / name
        log(f"{name}: downloading into {path.parent}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(self.url, timeout=TIMEOUT_SEC) as source, atomic_file(path) as target:
                while (chunk := source.read(CHUNK_BYTES)) and target.tell() <= self.max_mb << 20:
                    digest.update(chunk)
                    target.write(chunk)
                if not digest.hexdigest().startswith(self.sha256[name]):  # inside `with`: a wrong file is never renamed
                    raise OSError(f"sha256 {digest.hexdigest()[:8]}… instead of {self.sha256[name][:8]}…")
        except (OSError, HTTPException, ValueError) as error:
            reason = reason_of(error)
            raise UserError(f"{name}: not found, and cannot be downloaded ({reason}); {self.remedy()}") from error
        return path


def weights_folders() -> list[Path]:
    """Folders that are searched for weights; downloads go to the last one."""
    given = os.environ.get("CARFORGE_WEIGHTS")
    return [*([Path(given).expanduser()] if given else []), Path(torch.hub.get_dir()) / "checkpoints"]


def fill_network(
    network: N, content: bytes, path: Path, kind: str, remedy: str, rename: Callable[[Any], Any] = dict
) -> N:
    """Loads a file's weights into a network on the meta device, and freezes it.

    UserError when the content of `path` is not of this `kind`; no code in it is run.
    """
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network.load_state_dict(rename(weights), assign=True)
    except Exception as error:  # the unpickler raises nearly anything
        raise UserError(f"{path}: is not a file of {kind} ({reason_of(error)}); {remedy}") from error
    return frozen(network)


def frozen(network: N) -> N:
    """float32, eval mode, without gradients, channels last (a third faster on CPUs)."""
    network = network.float().eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
