"""The zip archive of a program file: which entries it may have, and how they are read."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

MODEL = "models/model.json"
MANIFEST = "extra/q8ta_manifest.json"
WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"

# What torch.export.save writes for one program without pickles. In files of earlier versions the entry of the
# example inputs is a pickle: it may be there, and is not read.
_ENTRIES = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/version|\.data/serialization_id"
    r"|models/model\.json|extra/q8ta_manifest\.json|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)
_FOLDER = re.compile(r"\w[\w.-]*")
_CHUNK_BYTES = 1 << 20


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The archive of a program file. What was checked is what is read: the file is opened once.

    Raises:
        ValueError, zipfile.BadZipFile: the file is something else.
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        yield Archive(file)


def _open_without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would be waited for


class Archive:
    """An archive whose entries are those of a program file, all in one folder and none compressed.

    Names are given without that folder. No size is larger than the file; what is read has its checksum.

    Raises:
        ValueError, zipfile.BadZipFile: the file is something else.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._zip = _open_zip(file)
        self._entries: dict[str, zipfile.ZipInfo] = {}
        folders = set()
        for info in self._zip.infolist():
            folder, _, name = info.filename.partition("/")
            folders.add(folder)
            if name in self._entries:
                raise ValueError(f"it holds {info.filename!r} twice")
            self._entries[name] = info
        if MANIFEST not in self._entries:
            name = MANIFEST.rpartition("/")[2]
            raise ValueError(f"it holds no {name}: it was not written by q8ta_ops.save")
        for name, info in self._entries.items():
            _check_entry(name, info)
        if len(folders) != 1 or not _FOLDER.fullmatch(folders.pop()):
            raise ValueError("its entries are not in one folder")
        size = file.seek(0, os.SEEK_END)
        if sum(info.file_size for info in self._entries.values()) > size:
            raise ValueError(f"its entries are larger than its {size} bytes")
        if not all(0 <= info.header_offset < size for info in self._entries.values()):
            raise ValueError("one of its entries is outside the file")
        self._check_format()

    def read(self, name: str) -> bytes:
        return self._zip.read(self._entry(name))

    def read_json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def read_bytes(self, name: str) -> torch.Tensor:
        """An entry as uint8 [bytes], in memory of its own."""
        info = self._entry(name)
        content = torch.empty(info.file_size, dtype=torch.uint8)
        chunk = bytearray(_CHUNK_BYTES)
        view, done = torch.frombuffer(chunk, dtype=torch.uint8), 0
        with self._zip.open(info) as entry:
            while count := entry.readinto(chunk):
                content[done : done + count] = view[:count]
                done += count
        if done != info.file_size:
            raise ValueError(f"{name!r} has {done} bytes instead of {info.file_size}")
        return content

    def _entry(self, name: str) -> zipfile.ZipInfo:
        if name not in self._entries:
            raise ValueError(f"it holds no {name!r}")
        return self._entries[name]

    def _check_format(self) -> None:
        expected = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": sys.byteorder.encode()}
        for name, content in expected.items():
            if (found := self.read(name)) != content:
                raise ValueError(f"{name}: expected {content!r}, got {found[:32]!r}")


def _open_zip(file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place that is not in the file
            raise zipfile.BadZipFile("its directory is outside the file") from error
        raise


def _check_entry(name: str, info: zipfile.ZipInfo) -> None:
    if not _ENTRIES.fullmatch(name):
        raise ValueError(
            f"it holds {info.filename!r}, which is nothing that a program file may hold: it is data, "
            "without pickles and libraries"
        )
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError(f"{info.filename!r} is compressed")
