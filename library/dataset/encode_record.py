"""One labeled file → the bytes of its record, as the workers do it."""

from dataclasses import dataclass
from typing import NamedTuple

from library.dataset.images import UnusableImageError, convert_image
from library.dataset.read_bytes import read_content
from library.dataset.records import Record, frame
from library.errors import reason_of


def naming_option(function, content, options):
    """Return function(content, options). What it raises names the option that would help."""
    try:
        return function(content, options)
    except UnusableImageError as error:
        raise UnusableImageError(f"{error} ({error.option})" if error.option else error) from None


class Task(NamedTuple):
    """One file to be made into a record."""

    place: tuple
    label: int | tuple
    text: str | tuple
    name: str


@dataclass(frozen=True)
class EncodeRecord:
    """The function of a Task that gives a framed record; picklable, for other processes."""

    options: object

    def __call__(self, task):
        """Raises UnusableImageError if the file is no image that can be used, or can't be read."""
        try:
            content = read_content(task.place)
        except (OSError, ValueError) as error:
            raise UnusableImageError(f"can't be read: {reason_of(error)}") from None
        jpeg, height, width = naming_option(convert_image, content, self.options)
        return frame(Record(jpeg, height, width, task.label, task.text, task.name))
