"""What is predicted from is what evaluation sees, to the bit."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from library.dataset.images import ImageOptions, UnusableImageError
from library.dataset.splits import read_splits
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.prediction.preprocess import Pictures
from library.saving.snapshots import read_snapshot
from project.inputs import EvaluationPipeline
from tests.conftest import convert

pytestmark = pytest.mark.slow


def encode(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write_mixture(folder):
    """Write images of all kinds that conversion changes, and some that it does not."""
    random = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number, (height, width) in enumerate([(8, 8), (9, 31), (70, 50), (16, 16), (1, 1)]):
            color = random.integers(0, 256, (height, width, 3), np.uint8)
            kinds = {
                "a.jpg": encode(color, "JPEG", quality=90),
                "b.jpg": encode(color, "JPEG", exif=turned),
                "c.png": encode(np.dstack([color, color[..., :1]]), "PNG"),
                "d.png": encode(color[..., 0].astype(np.uint16) * 257, "PNG"),
                "e.jpg": encode(color[..., 0], "JPEG"),
            }
            for ending, content in kinds.items():
                (folder / name / f"{number}{ending}").write_bytes(content)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_the_converted_split(tmp_path, channels):
    write_mixture(tmp_path / "train")
    gray = ["--color_space", "gray"] if channels == 1 else []
    convert(tmp_path / "train", tmp_path, "train", "--max_edge=40", "--background=#102030", *gray)
    (split,) = read_splits(tmp_path, "train")
    image_format = ImageFormat(8, channels)
    inputs = EvaluationPipeline(make_source(split), image_format, batch_size=100)
    (expected,) = [images.numpy() for images, _ in inputs.batches()]
    pictures = Pictures(
        image_format,
        ImageOptions(40, background=(16, 32, 48), color_space="gray" if channels == 1 else "rgb"),
    )
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(pictures.read, (tmp_path / "train").glob("*/*")))
    assert len(found) == len(expected) == 50
    assert found[0].dtype == np.uint8
    assert sorted(each.tobytes() for each in found) == sorted(each.tobytes() for each in expected)


def test_a_snapshot_brings_how_its_images_were_prepared(snapshot_run):
    pictures = Pictures.of(read_snapshot(snapshot_run.folder / "best"))
    assert pictures.image_format == ImageFormat(8, 3)
    large = encode(np.full((3, 500, 3), 90, np.uint8), "PNG")
    assert np.array_equal(pictures.pixels(large), np.full((8, 8, 3), 90))


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "is empty"), (b"hello", "is not a JPEG"), (b"\xff\xd8\xff\xe0", "truncated")],
)
def test_what_is_no_image_is_refused_with_the_reason(content, text):
    with pytest.raises(UnusableImageError, match=text):
        Pictures(ImageFormat(8, 3)).pixels(content)


def test_a_bomb_is_refused_before_it_is_decoded():
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    with pytest.raises(UnusableImageError, match="has 20000x20000 pixels, more than 128 million"):
        Pictures(ImageFormat(8, 3)).pixels(file.getvalue())


def test_damage_within_the_data_of_a_whole_looking_jpeg_is_a_reason_too():
    content = bytearray(encode(np.zeros((16, 16, 3), np.uint8), "JPEG"))
    # A Huffman table that can't be: markers and lengths stay as they were.
    at = content.index(b"\xff\xc4") + 5
    content[at : at + 16] = bytes([255]) * 16
    with pytest.raises(UnusableImageError, match="is a damaged JPEG: its data can't be decoded"):
        Pictures(ImageFormat(16, 3)).pixels(bytes(content))
