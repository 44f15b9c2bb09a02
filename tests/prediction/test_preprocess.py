"""Images are predicted from the pixels that evaluation sees, to the bit, and in order."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from library.dataset.images import ImageOptions, UnusableImageError, convert_image
from library.dataset.locations import FileLocation, MemoryLocation, NoLocation
from library.dataset.sources.base import LabeledFile
from library.dataset.splits import read_splits
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.prediction.predictor import Outputs
from library.prediction.preprocess import NAN_SCORES, ImagePreprocessor, predict_files
from library.saving.snapshots import read_snapshot
from project.inputs import EvaluationPipeline
from tests.conftest import convert
from tests.helpers.jpeg_variants import CONFORMANT, PLAIN, UNUSUAL_SAMPLING, encode_jpeg, waves


def encode(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write_mixture(folder):
    """Write images of all kinds that conversion changes, and some that it does not."""
    random = np.random.default_rng(0)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number, (height, width) in enumerate([(8, 8), (9, 31), (70, 50), (16, 16), (1, 1)]):
            color = random.integers(0, 256, (height, width, 3), np.uint8)
            kinds = {
                "a.jpg": encode(color, "JPEG", quality=90),
                "b.jpg": encode(color, "JPEG", exif=rotated),
                "c.png": encode(np.dstack([color, color[..., :1]]), "PNG"),
                "d.png": encode(color[..., 0].astype(np.uint16) * 257, "PNG"),
                "e.jpg": encode(color[..., 0], "JPEG"),
            }
            for suffix, content in kinds.items():
                (folder / name / f"{number}{suffix}").write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_preprocess_matches_the_converted_split(tmp_path, channels):
    write_mixture(tmp_path / "train")
    gray = ["--color_space", "gray"] if channels == 1 else []
    convert(tmp_path / "train", tmp_path, "train", "--max_edge=40", "--background=#102030", *gray)
    (split,) = read_splits(tmp_path, "train")
    image_format = ImageFormat(8, channels)
    inputs = EvaluationPipeline(make_source(split), image_format, batch_size=100)
    (expected,) = [images.numpy() for images, _ in inputs.batches()]
    preprocessor = ImagePreprocessor(
        image_format,
        ImageOptions(40, background=(16, 32, 48), color_space="gray" if channels == 1 else "rgb"),
    )
    contents = [path.read_bytes() for path in (tmp_path / "train").glob("*/*")]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(preprocessor.preprocess, contents))
    assert len(found) == len(expected) == 50
    assert found[0].dtype == np.uint8
    assert sorted(each.tobytes() for each in found) == sorted(each.tobytes() for each in expected)


@pytest.mark.parametrize(
    "image_format",
    [ImageFormat(8, 3), ImageFormat(7, 3), ImageFormat(20, 1), ImageFormat(32, 3, 48)],
    ids=str,
)
def test_preprocess_decodes_conformant_jpegs_as_tensorflow_does(image_format):
    preprocessor = ImagePreprocessor(image_format)
    odd = [encode_jpeg(Image.fromarray(waves(*size))) for size in [(101, 67), (13, 15), (224, 96)]]
    for content in [*CONFORMANT.values(), *UNUSUAL_SAMPLING.values(), *odd]:
        encoded, height, width = convert_image(content, ImageOptions())
        expected = preprocessor.decode(encoded, height, width)
        found = preprocessor.preprocess(content)
        assert found.shape == image_format.shape
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", [8, 32])
def test_preprocess_refuses_data_that_tensorflow_would_decode(size):
    damaged = bytearray(PLAIN)
    damaged[-60:-50] = b"\xff\x00" * 5
    assert tf.io.decode_jpeg(bytes(damaged)).shape == (32, 48, 3)
    with pytest.raises(UnusableImageError, match="damaged"):
        ImagePreprocessor(ImageFormat(size, 3)).preprocess(bytes(damaged))


@pytest.mark.slow
def test_for_snapshot_prepares_images_as_its_training(snapshot_run):
    snapshot = read_snapshot(snapshot_run.folder / "best")
    preprocessor = ImagePreprocessor.for_snapshot(snapshot)
    assert preprocessor.image_format == ImageFormat(8, 3)
    large = encode(np.full((3, 500, 3), 90, np.uint8), "PNG")
    assert np.array_equal(preprocessor.preprocess(large), np.full((8, 8, 3), 90))


def large_png():
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


def damaged_jpeg():
    """A JPEG whose markers and lengths are whole, but with an impossible Huffman table."""
    content = bytearray(encode(np.zeros((16, 16, 3), np.uint8), "JPEG"))
    start = content.index(b"\xff\xc4") + 5
    content[start : start + 16] = bytes([255]) * 16
    return bytes(content)


@pytest.mark.parametrize(
    ("make_content", "text"),
    [
        (lambda: b"", "empty"),
        (lambda: b"hello", "JPEG"),
        (lambda: b"\xff\xd8\xff\xe0", "cut short|truncated"),
        (large_png, "20000x20000|20000 x 20000"),
        (damaged_jpeg, "damaged JPEG"),
    ],
    ids=["empty", "text", "truncated", "decompression bomb", "damaged"],
)
def test_preprocess_refuses_unusable_images(make_content, text):
    with pytest.raises(UnusableImageError, match=text):
        ImagePreprocessor(ImageFormat(16, 3)).preprocess(make_content())


class FirstByte:
    """Stands for a preprocessor: an image is its first byte; longer content needs memory."""

    def preprocess(self, content):
        if content == b"":
            raise UnusableImageError("is empty")
        if len(content) > 1:
            raise MemoryError
        return np.array([content[0]], np.uint8)


class Recorder:
    """Stands for a predictor: returns its input, and records the batch sizes."""

    def __init__(self):
        self.sizes = []

    def run(self, pixels):
        self.sizes.append(len(pixels))
        values = pixels.astype(np.float32)
        return Outputs(values, 2 * values, values[:, 0].copy())


def file(number, location=None):
    return LabeledFile(str(number), "", 0, 0, location or MemoryLocation(bytes([number])))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
def test_predict_files_yields_every_file_in_order(count):
    recorder = Recorder()
    files = (file(number) for number in range(count))
    found = list(predict_files(files, FirstByte(), recorder, batch_size=8, threads=3))
    assert [(each.name, *each.probabilities, *each.embedding) for each in found] == [
        (str(number), number, 2 * number) for number in range(count)
    ]
    assert sum(recorder.sizes) == count
    assert max(recorder.sizes, default=0) <= 8


def test_predict_files_reports_unreadable_files_and_continues():
    files = [
        *[file(1, MemoryLocation(b"")), file(2), file(3, NoLocation("is not a regular file"))],
        *[file(4, MemoryLocation(b"long")), file(5, FileLocation("/no/such/file")), file(6)],
    ]
    found = list(predict_files(files, FirstByte(), Recorder(), batch_size=2))
    texts = ["is empty", None, "regular file", "memory", "No such file", None]
    for prediction, text in zip(found, texts, strict=True):
        assert (prediction.probabilities is None) == (text is not None)
        assert text is None or text in prediction.error


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("output", range(3), ids=Outputs._fields)
def test_predict_files_has_no_answer_for_nan_scores(value, output):
    class Broken(Recorder):
        def run(self, pixels):
            outputs = super().run(pixels)
            outputs[output][pixels[:, 0] == 2] = value
            return outputs

    found = list(predict_files(map(file, range(4)), FirstByte(), Broken(), batch_size=4))
    assert [each.error for each in found] == [None, None, NAN_SCORES, None]
    assert [each.probabilities is None for each in found] == [False, False, True, False]
    assert found[2].embedding is None
    assert found[3].probabilities == 3


def test_predict_files_reads_only_a_few_batches_ahead():
    taken = []
    files = (taken.append(number) or file(number % 256) for number in range(1000))
    stream = predict_files(files, FirstByte(), Recorder(), batch_size=4)
    for _ in range(100):
        next(stream)
    assert len(taken) <= 100 + 3 * 4
    stream.close()
