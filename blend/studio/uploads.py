"""Pictures that somebody dropped: looked at, and kept under the sha256 of their bytes. No name of theirs is used."""

import hashlib
from pathlib import Path

import numpy as np

from blend.generator.input_pictures import fit_content
from harness.errors import UserError
from harness.images.decode import Fit, PictureError
from harness.images.magic_bytes import picture_kind
from harness.storage.atomic import atomic_write

MOST_UPLOAD_BYTES = 25 * 2**20


class Uploads:
    """`folder` is made with the first picture."""

    def __init__(self, folder: Path, height: int, width: int, fit: Fit) -> None:
        self.folder, self.height, self.width = folder, height, width
        self.fit: Fit = fit

    def keep(self, content: bytes) -> tuple[str, np.ndarray]:
        """(reference, uint8 (H, W, 3) as it will be looked at). UserError for what is no picture that can be used."""
        if picture_kind(content) is None:
            raise UserError("upload: this is no JPEG, PNG or WebP picture; save it as one of these and drop it again")
        try:
            picture = fit_content(content, self.height, self.width, self.fit)
        except PictureError as error:
            raise UserError(f"upload: {error.reason}; try another picture") from error
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / sha256
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
        return f"file-{sha256}", picture
