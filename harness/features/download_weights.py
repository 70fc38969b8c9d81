"""Weights that others have published: looked for in the known places, checked, downloaded once."""

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
        names: the first is the one that `url` gives; others hold the same layers in another form.
        url: where the first is; "" where it must be placed by hand.
        sha256: name → how its content's sha256 begins.
        most_mb: a download that grows larger than this is broken off.
        advice: what else can be done with a file of another content.
    """

    names: tuple[str, ...]
    url: str
    sha256: dict[str, str]
    max_mb: int = 200
    advice: str = ""

    def find(self) -> Path | None:
        """Where one of the files lies: $CARFORGE_WEIGHTS or torch's cache ($TORCH_HOME/hub/checkpoints)."""
        places = (folder / name for folder in weights_folders() for name in self.names)
        return next((path for path in places if path.is_file()), None)

    def read(self, may_download: bool = True) -> tuple[Path, bytes, str]:
        """The file, its content, and the sha256 of that, checked. UserError when it is damaged, or not to be had."""
        path = self.find()
        if path is None:
            if not (self.url and may_download):
                raise UserError(f"{self.names[0]}: is nowhere; {self.remedy()}")
            path = self._download()
        content, found = self.read_content(path)
        wanted = self.sha256[path.name]
        if not found.startswith(wanted):
            advice = f"remove it; {self.remedy()}{self.advice.format(path=path)}"
            raise UserError(f"{path}: found sha256 {found[:8]}…, allowed {wanted[:8]}…; {advice}")
        return path, content, found

    def read_content(self, path: Path) -> tuple[bytes, str]:
        """Any file's content, and its sha256."""
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
        name, whole = self.names[0], hashlib.sha256()
        path = weights_folders()[-1] / name
        log(f"{name}: downloading into {path.parent}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(self.url, timeout=TIMEOUT_SEC) as source, atomic_file(path) as target:
                while (chunk := source.read(CHUNK_BYTES)) and target.tell() <= self.max_mb << 20:
                    whole.update(chunk)
                    target.write(chunk)
                if not whole.hexdigest().startswith(self.sha256[name]):  # inside: the file never gets its name
                    raise OSError(f"sha256 {whole.hexdigest()[:8]}… instead of {self.sha256[name][:8]}…")
        except (OSError, HTTPException, ValueError) as error:
            reason = reason_of(error)
            raise UserError(f"{name}: is nowhere, and cannot be downloaded ({reason}); {self.remedy()}") from error
        return path


def weights_folders() -> list[Path]:
    """Where weights are looked for; the last is where they are put."""
    given = os.environ.get("CARFORGE_WEIGHTS")
    return [*([Path(given).expanduser()] if given else []), Path(torch.hub.get_dir()) / "checkpoints"]


def fill_network(
    network: N, content: bytes, path: Path, kind: str, remedy: str, rename: Callable[[Any], Any] = dict
) -> N:
    """A network made on the meta device (which draws no random numbers), with the weights of a file, to be read alone.

    UserError when the content of `path` is not of this `kind`; no code in it is run.
    """
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network.load_state_dict(rename(weights), assign=True)
    except Exception as error:  # a file of another kind makes the unpickler raise nearly anything
        raise UserError(f"{path}: is no file of {kind} ({reason_of(error)}); {remedy}") from error
    return frozen(network)


def frozen(network: N) -> N:
    """float32, without gradients, channels last: a third faster on CPUs."""
    network = network.float().eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
