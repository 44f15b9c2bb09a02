"""Records made in the order in which a stream gives its files, then put into the listing's order.

A compressed tar can only be read from front to back, mostly class by class; shards must mix the
classes. So its records (not its images, which are larger) wait in the work folder.
"""

import numpy as np

from library.dataset.recording import Task
from library.dataset.records import read_frame_sizes
from library.dataset.shards import WorkFolder

# A killed conversion goes on after the last finished piece.
_PIECE_FILES = 1024
_PIECE_BYTES = 64 << 20


class Stage:
    """Pieces of finished records, in the order of the stream, inside the work folder."""

    def __init__(self, work):
        plan = (work.path / "plan").read_text()
        self.work = WorkFolder(work.path, work.name, plan)

    @staticmethod
    def ends_after(files, size, _position):
        """Tell whether a piece is to end."""
        return files >= _PIECE_FILES or size >= _PIECE_BYTES

    def move(self, listing, writer):
        """Write all records into the writer's shards, in the order of the listing."""
        pieces, offsets, sizes = self._locate(len(listing))
        left_out = {each["number"]: each for each in self.work.left_out}
        for number in range(writer.position, len(listing)):
            found = listing.found_at(number)
            if found in left_out:
                note = left_out[found]
                writer.leave_out(Task((), -1, note["label"], note["file"]), note["reason"])
                continue
            with self.work.shard_path(pieces[found]).open("rb") as file:
                file.seek(offsets[found])
                writer.write(file.read(sizes[found]), listing[number].label)

    def _locate(self, count):
        """Give arrays of the piece, offset and size of each record, in the order of the stream."""
        pieces, offsets, sizes = (np.zeros(count, np.int64) for _ in range(3))
        for piece, shard in enumerate(self.work.finished):
            absent = {each["number"] for each in shard.left_out}
            present = (n for n in range(shard.first, shard.end) if n not in absent)
            with self.work.shard_path(piece).open("rb") as file:
                for number, (offset, size) in zip(present, read_frame_sizes(file), strict=True):
                    pieces[number], offsets[number], sizes[number] = piece, offset, size
        return pieces, offsets, sizes
