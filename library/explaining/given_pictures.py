"""Files that a person names → Pictures: those that are no image are told of, the rest go on."""

from itertools import islice

from library.counted import counted
from library.dataset.images import UnusableImageError
from library.dataset.reading import read_content
from library.errors import DataError, printable
from library.explaining.explanation import Picture


def read_pictures(files, prepare, count, report):
    """Give a Picture for each of the first `count` LabelledFiles that is a usable image.

    `prepare` gives the network's pixels from a file's bytes. Raises DataError if none is usable.
    """
    files = iter(files)
    if pictures := list(islice(_usable(files, prepare, report), count)):
        if next(files, None) is not None:
            report(f"stopping after {counted(count, 'image')}; --explain_images takes more")
        return pictures
    raise DataError("none of the files is an image that can be used")


def _usable(files, prepare, report):
    for file in files:
        try:
            yield Picture(file.name, prepare(read_content(file.place)))
        except UnusableImageError as error:
            report(f"{printable(file.name)} {error}: left out")
        except MemoryError:
            report(f"{printable(file.name)} needs too much memory to decode: left out")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            report(f"{printable(file.name)} can't be read: {reason}: left out")
