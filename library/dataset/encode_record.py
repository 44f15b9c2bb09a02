"""One labeled file → the bytes of its record, as the worker processes make it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from library.dataset.images import ImageOptions, UnusableImageError, convert_image
from library.dataset.label_conflicts import image_key
from library.dataset.locations import Location, prefetch
from library.dataset.records import Record, frame
from library.errors import reason_of


class Task(NamedTuple):
    """A file to encode: where it is, its class id (multi-label: ids), its class and its name."""

    location: Location
    label: int | tuple[int, ...]
    text: str | tuple[str, ...]
    name: str


@dataclass(frozen=True)
class EncodeRecord:
    """The function from a Task to (record, key, notes); picklable, for other processes."""

    options: ImageOptions

    def __call__(self, task: Task) -> tuple[bytes, bytes, list[str]]:
        """Return the framed record, the image's key and what is odd about the image.

        Raises UnusableImageError if the file is not a usable image or can't be read.
        """
        content = read_image_bytes(task.location)
        notes: list[str] = []
        jpeg, height, width = convert_image(content, self.options, notes)
        record = Record(jpeg, height, width, task.label, task.text, task.name)
        return frame(record), image_key(jpeg, task.text), notes

    def prefetch(self, tasks: Iterable[Task]) -> None:
        """Have the system fetch the files that are about to be encoded."""
        prefetch(task.location for task in tasks)


def read_image_bytes(location: Location) -> bytes:
    """Return the bytes at a location. Raise UnusableImageError if they can't be read."""
    try:
        return location.read()
    except (OSError, ValueError) as error:
        raise UnusableImageError(f"can't be read: {reason_of(error)}") from None
