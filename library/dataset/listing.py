"""The files of a source in one stable order, kept on disk: a million take 30 MB of memory."""

import hashlib
import pickle
import tempfile
from array import array
from collections import Counter

import numpy as np

from library.dataset.sources import is_streamed

# A collision of 64 bits would only leave two files in the order in which they were found.
_DIGEST_BYTES = 8
_FINGERPRINT_BYTES = 16


class Listing:
    """LabelledFiles in an order made of seed and names, however they were found."""

    def __init__(self, files, seed=0):
        # Open as long as the listing lives.
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.counts = Counter()
        self.bytes = 0
        self.fingerprint = 0
        # Whether the files can only be read one after another, as they were found.
        self.is_streamed = False
        # Whether images may have several classes, or none.
        self.has_several = False
        self.offsets = array("Q")
        try:
            keys = self._write(files, str(seed).encode())
        except BaseException:
            self.close()
            raise
        self.order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")

    def _write(self, files, salt):
        """Write all files down; give the key of each one's place in the order."""
        keys = array("Q")
        for file in files:
            self.offsets.append(self.file.tell())
            pickle.dump(file, self.file, protocol=5)
            self.counts.update(file.labels)
            self.has_several |= isinstance(file.label, tuple)
            self.bytes += file.size
            self.is_streamed |= is_streamed(file)
            keys.append(int.from_bytes(name_hash(file.name, _DIGEST_BYTES, salt), "big"))
            # A sum: the same files found in another order are the same listing.
            facts = f"{file.size} {file.stamp} {file.label}/{file.name}"
            self.fingerprint += int.from_bytes(name_hash(facts, _FINGERPRINT_BYTES), "big")
        return keys

    def __len__(self):
        return len(self.offsets)

    def __getitem__(self, number):
        self.file.seek(self.offsets[self.order[number]])
        return pickle.load(self.file)

    def found_at(self, number):
        """Give where in the order of finding, from 0, the listing's file `number` was found."""
        return int(self.order[number])

    def close(self):
        """Give the disk space back."""
        self.file.close()


def name_hash(name, size, salt=b""):
    """Give `size` bytes that depend on nothing but a name and a salt, on any machine."""
    content = name.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(content, digest_size=size, key=salt).digest()
