import base64
import contextlib
import io
import struct
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

from library.dataset.images import ImageOptions, convert_image
from library.explaining.grad_cam import HIRES_CAM
from library.models.scores import MULTI_LABEL
from library.prediction.preprocess import NAN_SCORES
from library.prediction.unknown_score import UnknownDetector
from library.saving.snapshots import Snapshot, read_snapshot
from library.serving.decoder import UploadDecoder
from library.serving.model import ServedModel
from library.serving.request_error import RequestError
from tests.conftest import COLORS
from tests.prediction.test_image_pool import crashing  # noqa: F401
from tests.prediction.test_image_pool import encode as encode_color


@pytest.fixture(scope="session")
def model(snapshot_run):
    with ServedModel(read_snapshot(snapshot_run.folder / "best"), max_megapixels=1) as served:
        yield served


def encoded(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def opened(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_classify_any_image_format(model, kind):
    for name, color in COLORS.items():
        answer = model.classify(encoded(Image.new("RGB", (40, 20), color), kind))
        assert answer["class"] == answer["classes"][0]["class"] == name
        assert answer["probability"] == answer["classes"][0]["probability"] > 0.5
        assert {each["class"] for each in answer["classes"]} == set(COLORS)
        assert sum(each["probability"] for each in answer["classes"]) == pytest.approx(1)


def test_class_is_unknown_below_the_threshold(snapshot_run):
    snapshot = read_snapshot(snapshot_run.folder / "best")
    content = encoded(Image.new("RGB", (9, 9), COLORS["red"]))
    with ServedModel(snapshot, 50, threshold=1.0) as served:
        assert "threshold 1" in served.description
        sure = served.explain(content)
    with ServedModel(snapshot, 50, threshold=1.0, temperature=2.0) as served:
        answer = served.explain(content)
    assert (answer["class"], answer["classes"][0]["class"]) == ("unknown", "red")
    assert answer["probability"] == answer["classes"][0]["probability"] < sure["probability"] < 1
    assert answer["heat"] == sure["heat"]
    assert answer["heat"]["class"] == "red"


@pytest.mark.parametrize(("threshold", "name"), [(-1e6, "unknown"), (1e6, "red")])
def test_class_is_unknown_if_the_detector_says_so(snapshot_run, threshold, name):
    snapshot = read_snapshot(snapshot_run.folder / "best")
    content = encoded(Image.new("RGB", (9, 9), COLORS["red"]))
    detector = UnknownDetector("energy", threshold)
    with ServedModel(snapshot, 50, temperature=2.0, detector=detector) as served:
        answer = served.explain(content)
    assert (answer["class"], answer["classes"][0]["class"]) == (name, "red")
    assert answer["unknown_score"] == pytest.approx(-threshold, rel=1e-3)


def test_multi_label_answer_lists_all_classes_found(tmp_path):
    pixels = keras.Input((4, 4, 3))
    scores = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 20, -5)(pixels))
    named = keras.layers.Activation("linear", name=MULTI_LABEL)(scores)
    snapshot = Snapshot(keras.Model(pixels, named), ("red", "green", "blue"), {}, tmp_path)
    content = encoded(Image.new("RGB", (4, 4), (250, 0, 160)))
    for threshold, found in ((None, ["red", "blue"]), (0.97, ["red"]), (1.0, [])):
        with ServedModel(snapshot, 50, threshold=threshold) as served:
            answer = served.classify(content)
        assert (answer["class"], answer["found"]) == ("red", found)


def test_nan_scores_are_an_error(snapshot_run):
    snapshot = read_snapshot(snapshot_run.folder / "best")
    weights = snapshot.network.trainable_variables[-1]
    weights.assign([np.nan, *weights.numpy()[1:]])
    content = encoded(Image.new("RGB", (9, 9), COLORS["red"]))
    with ServedModel(snapshot, 50, threshold=0.5) as served:
        for ask in (served.classify, served.explain):
            with pytest.raises(RequestError, match=NAN_SCORES) as caught:
                ask(content)
            assert caught.value.status == 500


def test_explain_the_likeliest_class_or_another(model):
    content = encoded(Image.new("RGB", (1000, 500), COLORS["red"]))
    answer = model.explain(content)
    assert answer["heat"]["class"] == answer["class"] == "red"
    assert answer["heat"]["method"] == HIRES_CAM
    assert answer["classes"] == model.classify(content)["classes"]
    with opened(answer["picture"]) as picture, opened(answer["heat"]["image"]) as heat:
        assert picture.size == heat.size == (640, 320)
        assert np.abs(np.asarray(picture)[0, 0] - np.array(COLORS["red"])).max() < 12
        assert heat.mode == "RGBA"
    assert model.explain(content, "blue")["heat"]["class"] == "blue"
    with pytest.raises(RequestError, match="'bleu'"):
        model.explain(content, "bleu")


def test_explain_shows_the_image_upright(model):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (100, 50), COLORS["red"]), "JPEG", exif=exif)
    with opened(model.explain(content)["picture"]) as picture:
        assert picture.size == (50, 100)


def test_explain_an_image_of_one_pixel(model):
    content = encoded(Image.new("RGB", (1, 1), COLORS["green"]))
    assert model.explain(content)["class"] == "green"


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (b"hello", "no_image_format", "JPEG, PNG, GIF, BMP, TIFF or WebP"),
        (b"<svg></svg>", "no_image_format", "JPEG"),
        (encoded(Image.new("RGB", (99, 99)))[:60], "damaged_image", "decoded"),
        (
            encoded(Image.effect_noise((200, 200), 99), "JPEG")[:3000],
            "damaged_image",
            "damaged JPEG",
        ),
        (
            encoded(Image.new("1", (1001, 1000))),
            "too_many_pixels",
            "1001 x 1000 pixels",
        ),
        (b"\xff\xd8\xff", "no_image_format", "JPEG"),
    ],
)
def test_classify_refuses_unusable_images(model, content, code, text):
    with pytest.raises(RequestError, match=text) as caught:
        model.classify(content)
    assert caught.value.code == code


def test_classify_refuses_a_decompression_bomb(model):
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    with pytest.raises(RequestError, match="20000 x 20000 pixels"):
        model.classify(content)


def test_classify_answers_or_refuses_any_bytes(model):
    intact = encoded(Image.effect_noise((40, 40), 99).convert("RGB"), "JPEG")
    random = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(intact)
        for at in random.integers(0, len(intact), 3):
            content[at] = random.integers(256)
        # Any other error fails the test.
        with contextlib.suppress(RequestError):
            assert len(model.classify(bytes(content))["classes"]) == 3


DECODER_OPTIONS = ImageOptions(max_edge=20, max_pixels=1_000_000)


def test_decoder_converts_and_shows_an_image():
    content = encode_color("red", size=(1000, 250))
    with UploadDecoder(DECODER_OPTIONS) as decoder:
        assert decoder.decode(content) == (convert_image(content, DECODER_OPTIONS), None)
        converted, shown = decoder.decode(content, is_shown=True)
    assert converted == convert_image(content, DECODER_OPTIONS)
    assert shown.shape == (160, 640, 3)
    assert np.array_equal(shown[0, 0], (255, 0, 0))


def test_decoder_survives_an_image_that_crashes_it(crashing):  # noqa: F811
    with UploadDecoder(DECODER_OPTIONS) as decoder:
        for _ in range(2):
            with pytest.raises(RequestError, match="SIGSEGV") as caught:
                decoder.decode(encode_color("red") + b"crash")
            assert caught.value.code == "damaged_image"
            assert decoder.decode(encode_color("red"))[0][1:] == (7, 20)


def test_decoder_refuses_an_image_that_takes_too_long():
    large = io.BytesIO()
    Image.effect_noise((900, 900), 99).save(large, "PNG")
    with UploadDecoder(DECODER_OPTIONS, seconds=0.001) as decoder:
        with pytest.raises(RequestError, match=r"0\.001 s") as caught:
            decoder.decode(large.getvalue())
        assert caught.value.code == "damaged_image"
