"""The files of a source in one stable order, kept on disk: a million take 30 MB of memory."""

import hashlib
import marshal
import tempfile
from array import array
from collections import Counter
from io import FileIO

import numpy as np

from library.dataset.sources.base import LabeledFile, is_streamed

# A collision of 64 bits would only leave two files in the order in which they were found.
_DIGEST_BYTES = 8
_FINGERPRINT_BYTES = 16


class FileIndex:
    """LabeledFiles in an order made of seed and names, however they were found."""

    def __init__(self, files, seed=0):
        # Open as long as the listing lives.
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        # Unbuffered: reading at random, a buffer would be filled for each file.
        self.reader = FileIO(self.file.fileno(), closefd=False)
        self.counts = Counter()
        self.bytes = 0
        self.fingerprint = 0
        # Whether the files can only be read one after another, as they were found.
        self.is_streamed = False
        # Whether images may have several classes, or none.
        self.is_multi_label = False
        # Where each file's line begins, and the last one ends.
        self.offsets = array("Q", [0])
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
            # A tenth of what pickling takes; nobody but this process ever reads it.
            self.offsets.append(self.offsets[-1] + self.file.write(marshal.dumps(tuple(file))))
            self.counts.update(file.labels)
            self.is_multi_label |= isinstance(file.label, tuple)
            self.bytes += file.size
            self.is_streamed |= is_streamed(file)
            keys.append(int.from_bytes(name_hash(file.name, _DIGEST_BYTES, salt), "big"))
            # A sum: the same files found in another order are the same listing.
            facts = f"{file.size} {file.stamp} {file.label}/{file.name}"
            if file.place[0] == "none":
                facts += f" {file.place[1]}"  # It may be readable next time.
            self.fingerprint += int.from_bytes(name_hash(facts, _FINGERPRINT_BYTES), "big")
        self.file.flush()
        return keys

    def __len__(self):
        return len(self.order)

    def __getitem__(self, number):
        found = int(self.order[number])
        begin, end = self.offsets[found : found + 2]
        self.reader.seek(begin)
        return LabeledFile(*marshal.loads(self.reader.read(end - begin)))

    def found_at(self, number):
        """Return where in the order of finding, from 0, the listing's file `number` was found."""
        return int(self.order[number])

    def close(self):
        """Return the disk space back."""
        self.reader.close()
        self.file.close()


def name_hash(name, size, salt=b""):
    """Give `size` bytes that depend on nothing but a name and a salt, on any machine."""
    content = name.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(content, digest_size=size, key=salt).digest()
