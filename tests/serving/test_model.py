import base64
import contextlib
import io
import struct
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

from library.explaining.grad_cam import HIRES_CAM
from library.models.scores import MULTI_LABEL
from library.saving.snapshots import Snapshot, read_snapshot
from library.serving.model import ServedModel
from library.serving.refusals import RefusedError
from tests.conftest import COLORS


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
def test_any_kind_of_image_gets_the_class_it_shows(model, kind):
    for name, color in COLORS.items():
        answer = model.answer(encoded(Image.new("RGB", (40, 20), color), kind))
        assert answer["class"] == answer["classes"][0]["class"] == name
        assert answer["probability"] == answer["classes"][0]["probability"] > 0.5
        assert {each["class"] for each in answer["classes"]} == set(COLORS)
        assert sum(each["probability"] for each in answer["classes"]) == pytest.approx(1)


def test_below_the_threshold_the_class_is_unknown_and_the_likeliest_is_told(snapshot_run):
    snapshot = read_snapshot(snapshot_run.folder / "best")
    content = encoded(Image.new("RGB", (9, 9), COLORS["red"]))
    with ServedModel(snapshot, threshold=1.0) as served:
        assert "from a probability of 1 on" in served.subject
        sure = served.explain(content)
    with ServedModel(snapshot, threshold=1.0, temperature=2.0) as served:
        answer = served.explain(content)
    assert (answer["class"], answer["classes"][0]["class"]) == ("unknown", "red")
    assert answer["probability"] == answer["classes"][0]["probability"] < sure["probability"] < 1
    assert answer["heat"] == sure["heat"]
    assert answer["heat"]["class"] == "red"


def test_where_several_may_be_right_all_that_are_found_are_told(tmp_path):
    pixels = keras.Input((4, 4, 3))
    scores = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 20, -5)(pixels))
    named = keras.layers.Activation("linear", name=MULTI_LABEL)(scores)
    snapshot = Snapshot(keras.Model(pixels, named), ("red", "green", "blue"), {}, tmp_path)
    content = encoded(Image.new("RGB", (4, 4), (250, 0, 160)))
    for threshold, found in ((None, ["red", "blue"]), (0.97, ["red"]), (1.0, [])):
        with ServedModel(snapshot, threshold=threshold) as served:
            answer = served.answer(content)
        assert (answer["class"], answer["found"]) == ("red", found)


def test_scores_that_are_no_numbers_are_no_answer(snapshot_run):
    snapshot = read_snapshot(snapshot_run.folder / "best")
    weights = snapshot.network.trainable_variables[-1]
    weights.assign([np.nan, *weights.numpy()[1:]])
    content = encoded(Image.new("RGB", (9, 9), COLORS["red"]))
    with ServedModel(snapshot, threshold=0.5) as served:
        for ask in (served.answer, served.explain):
            with pytest.raises(RefusedError, match="the image gives scores that are no") as caught:
                ask(content)
            assert caught.value.status == 500


def test_it_explains_the_likeliest_class_or_another(model):
    content = encoded(Image.new("RGB", (1000, 500), COLORS["red"]))
    answer = model.explain(content)
    assert answer["heat"]["class"] == answer["class"] == "red"
    assert answer["heat"]["method"] == HIRES_CAM
    assert answer["classes"] == model.answer(content)["classes"]
    with opened(answer["picture"]) as picture, opened(answer["heat"]["image"]) as heat:
        assert picture.size == heat.size == (640, 320)
        assert np.abs(np.asarray(picture)[0, 0] - np.array(COLORS["red"])).max() < 12
        assert heat.mode == "RGBA"
    assert model.explain(content, "blue")["heat"]["class"] == "blue"
    with pytest.raises(RefusedError, match="there is no class 'bleu'"):
        model.explain(content, "bleu")


def test_a_picture_is_turned_as_its_exif_says(model):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (100, 50), COLORS["red"]), "JPEG", exif=exif)
    with opened(model.explain(content)["picture"]) as picture:
        assert picture.size == (50, 100)


def test_one_pixel_is_an_image(model):
    content = encoded(Image.new("RGB", (1, 1), COLORS["green"]))
    assert model.explain(content)["class"] == "green"


@pytest.mark.parametrize(
    ("content", "word", "text"),
    [
        (b"hello", "no_image_format", "is no JPEG, PNG, GIF, BMP, TIFF or WebP image"),
        (b"<svg></svg>", "no_image_format", "is no JPEG"),
        (encoded(Image.new("RGB", (99, 99)))[:60], "damaged_image", "the image can't be decoded"),
        (
            encoded(Image.effect_noise((200, 200), 99), "JPEG")[:3000],
            "damaged_image",
            "the image is a damaged JPEG",
        ),
        (
            encoded(Image.new("1", (1001, 1000))),
            "too_many_pixels",
            "the image has 1001 x 1000 pixels, more than 1 million",
        ),
        (b"\xff\xd8\xff", "no_image_format", "is no JPEG"),
    ],
)
def test_what_cannot_be_used_is_refused(model, content, word, text):
    with pytest.raises(RefusedError, match=text) as caught:
        model.answer(content)
    assert caught.value.word == word


def test_a_bomb_is_refused_before_it_is_decoded(model):
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    with pytest.raises(RefusedError, match="has 20000 x 20000 pixels, more than 1 million"):
        model.answer(content)


def test_any_bytes_are_answered_or_refused(model):
    whole = encoded(Image.effect_noise((40, 40), 99).convert("RGB"), "JPEG")
    random = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for at in random.integers(0, len(whole), 3):
            content[at] = random.integers(256)
        # Anything but a refusal would fail the test.
        with contextlib.suppress(RefusedError):
            assert len(model.answer(bytes(content))["classes"]) == 3
