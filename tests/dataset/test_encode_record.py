import io
import pickle

import pytest

from library.dataset.encode_record import EncodeRecord, Task
from library.dataset.images import ImageOptions, UnusableImageError
from library.dataset.locations import FileLocation
from library.dataset.records import read_frames, read_record
from library.describing.dataset_summary import MeasureFile
from tests.dataset.test_images import colorful, saved

MAKE = EncodeRecord(ImageOptions(max_edge=32))


def test_a_file_becomes_a_framed_record(tmp_path):
    (tmp_path / "1.png").write_bytes(saved(colorful(), "PNG"))
    task = Task(FileLocation(str(tmp_path / "1.png")), 3, "cat", "cat/1.png")
    framed = pickle.loads(pickle.dumps(MAKE))(task)
    ((_, content),) = read_frames(io.BytesIO(framed), "here")
    record = read_record(content, "here")
    assert (record.label, record.text, record.filename) == (3, "cat", "cat/1.png")
    assert (record.width, record.height) == (32, 21)


def test_a_file_that_can_not_be_read_says_why(tmp_path):
    with pytest.raises(UnusableImageError, match="can't be read: No such file or directory"):
        MAKE(Task(FileLocation(str(tmp_path / "nowhere")), 0, "cat", "cat/1.png"))


def test_where_an_option_would_help_it_is_named(tmp_path):
    (tmp_path / "1.png").write_bytes(saved(colorful(), "PNG"))
    options = ImageOptions(max_pixels=100)
    task = Task(FileLocation(str(tmp_path / "1.png")), 3, "cat", "cat/1.png")
    for function, item in ((EncodeRecord(options), task), (MeasureFile(options), task.location)):
        with pytest.raises(UnusableImageError, match=r"pixels, more than .* \(--max_megapixels\)$"):
            function(item)
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(UnusableImageError, match=r"TIFF or WebP image$"):
        EncodeRecord(options)(task)
