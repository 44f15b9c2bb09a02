"""The files of a source in a stable order, held on disk: a million take 30 MB of memory.

Images that come with their bytes, as from a compressed tar, are held there as well.
"""

import hashlib
import marshal
import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Iterable
from io import FileIO
from typing import Any, get_args

import numpy as np

from library.dataset.locations import Location, NoLocation
from library.dataset.sources.base import LabeledFile
from library.files import temporary_file_error

# A collision of 64 bits would only leave two files in the order in which they were found.
_DIGEST_BYTES = 8
_FINGERPRINT_BYTES = 16
_LOCATIONS = get_args(Location)
_LOCATION_IDS = {kind: number for number, kind in enumerate(_LOCATIONS)}


class FileIndex:
    """Labeled files in an order that depends only on a seed and their names.

    Attributes:
        counts: Files per class.
        bytes: Size of all files.
        fingerprint: A number that changes with the files, in whatever order they are found.
        is_multi_label: Whether labels are tuples of classes.
    """

    def __init__(self, files: Iterable[LabeledFile], seed: int = 0) -> None:
        # Open as long as the index lives.
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self.file.close)
        # Unbuffered: reading at random, a buffer would be filled for each file.
        self._reader = FileIO(self.file.fileno(), closefd=False)
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self.fingerprint = 0
        self.is_multi_label = False
        # Where each file's entry begins, and the last one ends.
        self._offsets = array("Q", [0])
        keys = self._write(files, str(seed).encode())
        self._order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")

    def _write(self, files: Iterable[LabeledFile], salt: bytes) -> "array[int]":
        """Write all files to disk and return their sort keys."""
        keys = array("Q")
        for file in files:
            name, label, size, version, location = file
            # marshal takes a tenth of pickle's time; only this process reads the entry.
            kind = _LOCATION_IDS[type(location)]
            entry: Any = (name, label, size, version, kind, tuple(location))
            self._offsets.append(self._offsets[-1] + self._append(marshal.dumps(entry)))
            self.counts.update(file.labels)
            self.is_multi_label |= isinstance(label, tuple)
            self.bytes += size
            keys.append(int.from_bytes(name_hash(name, _DIGEST_BYTES, salt), "big"))
            facts = f"{size} {version} {label}/{name}"
            if isinstance(location, NoLocation):
                facts += f" {location.reason}"  # The file may be readable next time.
            # A sum does not depend on the order.
            self.fingerprint += int.from_bytes(name_hash(facts, _FINGERPRINT_BYTES), "big")
        self._append(b"", is_last=True)
        return keys

    def _append(self, content: bytes, *, is_last: bool = False) -> int:
        try:
            size = self.file.write(content)
            if is_last:
                self.file.flush()
            return size
        except OSError as error:
            raise temporary_file_error(error) from None

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> LabeledFile:
        found = int(self._order[number])
        begin, end = self._offsets[found : found + 2]
        self._reader.seek(begin)
        entry = marshal.loads(self._reader.read(end - begin))
        name, label, size, version, kind, location = entry
        return LabeledFile(name, label, size, version, _LOCATIONS[kind](*location))

    def close(self) -> None:
        """Free the disk space."""
        self._reader.close()
        self.file.close()


def name_hash(name: str, size: int, salt: bytes = b"") -> bytes:
    """Return `size` bytes that depend only on a name and a salt, on any machine."""
    content = name.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(content, digest_size=size, key=salt).digest()
