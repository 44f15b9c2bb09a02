"""What is fuzzed. A target returns a strategy of inputs, and a function that takes one of them.

The function raises nothing for whatever input: errors that a user would see in one line it checks
and swallows. Only a target imports what it needs.
"""

import asyncio
import contextlib
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import google_crc32c
import numpy as np
from hypothesis import strategies as some
from PIL import Image

from library.errors import DataError, SettingsError, UserError
from tests.fuzz.mutations import mutated

_MAX_LINE = 5000
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def one_line(*errors):
    """Swallow errors of these classes, if their text is a line that may be shown."""
    try:
        yield
    except errors as error:
        text = str(error)
        if not text or "\n" in text or len(text) > _MAX_LINE:
            raise AssertionError(f"not a line to show: {text[:_MAX_LINE]!r}") from error


def make_image(kind, mode="RGB", **options):
    """A small image file of a format."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def make_images():
    """One or more image files of each format."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        make_image("JPEG", exif=exif, icc_profile=b"profile"),
        make_image("JPEG", progressive=True),
        make_image("JPEG", "CMYK"),
        make_image("PNG", exif=exif),
        make_image("PNG", "RGBA"),
        make_image("PNG", "P"),
        make_image("GIF"),
        make_image("BMP"),
        make_image("TIFF", compression="tiff_deflate"),
        make_image("WEBP", exif=exif),
    ]


def yaml(folder):
    """Settings files, from the text to typed settings."""
    import run
    from project.settings import read_settings

    seeds = [
        (ROOT / "project.yaml").read_bytes(),
        (ROOT / "hyperparameters.yaml").read_bytes(),
        b"default: &a {train_epochs: 3, run_dir: x}\nb: {<<: *a, xla: true}\n---\ndefault: {}\n",
    ]
    words = [b"&a ", b"*a", b"<<: ", b"!!python/name:os.system ", b"\n---\n", b"? ", b"- ", b"{"]
    words += [
        b"[",
        b"1e999",
        b"0x",
        b"~",
        b"\t",
        b"\0",
        b"\xff",
        b"\xe2\x80\xa8",
        b"'",
        b"|\n",
        b"%",
    ]

    def check(content):
        (folder / "project.yaml").write_bytes(content)
        for option in ("--config_file", "--hyperparameter_file"):
            with one_line(SettingsError):
                read_settings([option, str(folder / "project.yaml")], run.COMMANDS)

    return mutated(seeds, words), check


def manifest(folder):
    """Manifests of converted splits."""
    from library.dataset.manifest import describe_split, parse_manifest

    shards = ROOT / "tests" / "data" / "v0_1" / "shards"
    seeds = [path.read_bytes() for path in shards.glob("*/train.manifest.json")]
    words = [b"1e999", b"-1", b"null", b"true", b"[[", b'{"a":', b"\\u0000", b'"', b"9" * 30]

    def check(content):
        with one_line(DataError):
            read = parse_manifest(content, "train.manifest.json", folder, "train")
            describe_split(read)
            assert read.fingerprint
            assert len(read.paths) == len(read.shards)

    return mutated(seeds, words), check


def _masked_crc(content):
    crc = google_crc32c.value(content)
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)


def records(folder):
    """TFRecord files: their framing, the messages inside, and the images' bytes."""
    from library.dataset.record_fields import RecordFields
    from library.dataset.records import Record, check_frames, serialize
    from library.dataset.sources.tfrecords import find_in_records
    from library.inputs.corruption import find_corrupt_record

    path = folder / "a.tfrecord"
    example = serialize(Record(make_image("JPEG"), 9, 12, 1, "cat", "cat/1.jpg"))
    framed = len(example).to_bytes(8, "little")
    framed += _masked_crc(framed) + example + _masked_crc(example)

    def frame(content, length):
        header = (len(content) if length is None else length).to_bytes(8, "little")
        return header + _masked_crc(header) + content + _masked_crc(content)

    # As it is, or with the right checksums around what was changed.
    lengths = some.one_of(some.none(), some.integers(0, 2**64 - 1))
    contents = some.one_of(mutated([framed * 2]), some.builds(frame, mutated([example]), lengths))

    def check(content):
        path.write_bytes(content)
        for is_multi_label in (False, True):
            with one_line(DataError):
                fields = RecordFields(is_multi_label=is_multi_label)
                for file in find_in_records(path, fields):
                    with one_line(OSError, ValueError, DataError):
                        file.location.read()
            find_corrupt_record({str(path): 2}, 3, is_multi_label, "convert again")
        with one_line(DataError):
            check_frames(path, 2)

    return contents, check


def archives(folder):
    """Zips and tars."""
    from library.dataset.sources.archive import find_in_archive
    from library.prediction.image_paths import find_images

    files = {"train/cat/1.jpg": make_image("JPEG"), "train/dog/2.png": b"2" * 50, "../x.jpg": b"3"}
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        seeds.append(file.getvalue())
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode=mode, format=kind) as archive:
                for name, content in {**files, "train/cat/" + "ü" * 120 + ".jpg": b"4"}.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
            seeds.append(file.getvalue())

    def check(content):
        path = folder / "a.tar"
        path.write_bytes(content)
        for inside in ("", "train"):
            with one_line(DataError):
                for file in find_in_archive(path, inside):
                    with one_line(OSError, ValueError):
                        file.location.read()
        with one_line(DataError):
            list(find_images([str(path)]))

    return mutated(seeds, [b"PK\1\2", b"PK\3\4", b"PK\5\6", b"7777777", b"99 path=../"]), check


def images(folder):
    """Image files: the JPEG parser, conversion, and the header parsers of the export's graph."""
    import tensorflow as tf

    from library.dataset.images import ImageOptions, UnusableImageError, convert_image
    from library.dataset.jpeg import read_jpeg_header
    from library.export.image_headers import UNKNOWN_ORIENTATION, read_jpeg_markers, read_png_chunks

    options = ImageOptions(max_edge=16, max_pixels=1_000_000)
    string = [tf.TensorSpec([], tf.string)]
    markers = tf.function(read_jpeg_markers, input_signature=string, autograph=False)
    chunks = tf.function(read_png_chunks, input_signature=string, autograph=False)

    def check(content):
        header = read_jpeg_header(content) if content.startswith(b"\xff\xd8") else None
        if header:
            assert 1 <= header.orientation <= 8
        assert int(markers(content).orientation) in {*range(1, 9), UNKNOWN_ORIENTATION}
        assert int(chunks(content).orientation) in {*range(1, 9), UNKNOWN_ORIENTATION}
        with one_line(UnusableImageError, MemoryError):
            converted = convert_image(content, options)
            assert max(converted.height, converted.width) <= options.max_edge

    words = [
        b"\xff\xd8",
        b"\xff\xe1",
        b"\xff\xda",
        b"\xff\xd9",
        b"Exif\0\0",
        b"eXIf",
        b"IHDR",
        b"II*\0",
    ]
    return mutated(make_images(), words), check


def uploads(folder):
    """Requests with an upload, up to the bytes of the image."""
    from starlette.requests import ClientDisconnect, Request

    from library.serving.request_error import RequestError
    from library.serving.uploads import RequestLimits, UploadMemory, read_upload

    limits = RequestLimits(0.01, 5, 16)
    part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\n\r\nimage\r\n'
    bodies = mutated(
        [part + b"--x--\r\n", part * 20, b"image"], [b"--x", b"\r\n", b"; filename=", b"%"]
    )
    types = mutated([b"multipart/form-data; boundary=x", b"image/jpeg", b""], [b"boundary=", b";"])

    async def read(body, kind, size):
        parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
        messages = [
            {"type": "http.request", "body": part, "more_body": number + 1 < len(parts)}
            for number, part in enumerate(parts)
        ]

        async def receive():
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        scope = {"type": "http", "method": "POST", "headers": headers, "app": None}
        request = Request(scope, receive)
        memory = UploadMemory(limits)
        with contextlib.suppress(RequestError, ClientDisconnect), memory.share() as share:
            assert len(await read_upload(request, limits, share)) <= limits.upload_bytes
        assert memory.free == UploadMemory(limits).free

    def check(item):
        asyncio.run(read(*item))

    return some.tuples(bodies, types, some.integers(1, 4096)), check


def snapshots(folder):
    """Snapshots: each file in turn, with the right hashes."""
    import keras

    from library.files import seal_folder
    from library.saving.snapshots import read_snapshot, write_snapshot

    best = folder / "best"
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(2, 3, activation="relu")(pixels)
    x = keras.layers.BatchNormalization()(x)
    network = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    data = '{"images": {"max_edge": 9, "background": [1, 2, 3]}, "examples": 3}'
    write_snapshot(best, network, ("cat", "dog"), {"epoch": 1, "value": 0.5}, {"data.json": data})
    with zipfile.ZipFile(best / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    originals = {path.name: path.read_bytes() for path in best.iterdir()}
    names = [*members, *(each for each in originals if each != "hashes.json")]
    words = [b"null", b"[]", b"{}", b"1e999", b"[[", b'"class_name": "Lambda"', b'"module": "os"']

    @some.composite
    def changed(draw):
        name = draw(some.sampled_from(names))
        return name, draw(mutated([members.get(name) or originals[name]], words))

    def check(item):
        name, content = item
        for each, original in originals.items():
            (best / each).write_bytes(original)
        if name in members:
            with zipfile.ZipFile(best / "model.keras", "w") as archive:
                for each, original in members.items():
                    archive.writestr(each, content if each == name else original)
        else:
            (best / name).write_bytes(content)
        seal_folder(best)
        with one_line(UserError):
            snapshot = read_snapshot(best)
            assert len(snapshot.classes) == 2
            assert snapshot.image_options

    return changed(), check


TARGETS = {
    each.__name__: each for each in (yaml, manifest, records, archives, images, uploads, snapshots)
}
