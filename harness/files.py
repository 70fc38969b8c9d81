"""Opening files named by users, without hanging on pipes and devices."""

import errno
import os
import stat
from io import BufferedReader
from os import open as open_descriptor  # not `os.open`, which tests patch to fail writes
from pathlib import Path


def open_file(path: Path | str) -> BufferedReader:
    """Opens a regular file for reading. OSError for a pipe, a socket, a device (which may never end) or no file."""
    try:
        descriptor = open_descriptor(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer
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
    """The content of a regular file; OSError as `open_file`."""
    with open_file(path) as file:
        return file.read()
