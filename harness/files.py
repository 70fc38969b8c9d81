"""Files that somebody names, opened so that reading them comes to an end."""

import errno
import os
import stat
from io import BufferedReader
from os import open as open_descriptor  # not as `os.open`, where tests fail what writes
from pathlib import Path


def open_file(path: Path | str) -> BufferedReader:
    """A file, open to read. OSError for a pipe, a socket or a device, which may never end, as for what is not there."""
    try:
        descriptor = open_descriptor(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for who writes
    except ValueError as error:
        raise OSError(errno.EINVAL, "its name holds a null byte", str(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def read_file(path: Path | str) -> bytes:
    """All of a file; OSError as `open_file`."""
    with open_file(path) as file:
        return file.read()
