"""Writes program files so that an error while writing is an exception."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.export import ExportedProgram


def write_program(program: ExportedProgram, path: Path, extra_files: dict[str, str]) -> None:
    """Writes a new file as torch.export.save does, and returns when it is on the disk.

    Raises:
        OSError: the file is there, or cannot be written. What was written stays.
    """
    with open(path, "xb") as file, warnings.catch_warnings():
        # torch takes a tensor with padding for a part of a larger one; it saves all of the storage.
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        output = _Output(file)
        torch.export.save(program, output, extra_files=extra_files)
        output.raise_failure()
        file.flush()
        os.fsync(file.fileno())


class _Output(io.RawIOBase):
    """Takes what torch writes, and keeps the first error until torch is done.

    torch ends the process if a write raises: when the disk is full, or when Ctrl-C comes during a write.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._failure: BaseException | None = None

    def write(self, data: Any) -> int:
        if self._failure is None:
            try:
                self._file.write(data)
            except BaseException as error:
                self._failure = error
        return len(data)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return offset  # torch rewinds what it has written; nobody reads it

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
