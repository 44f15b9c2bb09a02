import io
from dataclasses import replace

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as some

from library.dataset.records import (
    ENCODED,
    FRAMING_BYTES,
    LABEL,
    TEXT,
    Fields,
    Record,
    frame,
    parse_record,
    read_frames,
    read_record,
    serialize,
)
from library.errors import DataError

RECORD = Record(b"\xff\xd8 image", 28, 30, 7, "Ankle boot", "Ankle boot/00001.png")


def frames(content):
    return list(read_frames(io.BytesIO(content), "a.tfrecord"))


# The first example takes as long as importing TensorFlow does.
@given(
    some.builds(
        Record,
        encoded=some.binary(max_size=300),
        height=some.integers(0, 2**31),
        width=some.integers(0, 2**31),
        label=some.integers(-(2**63), 2**63 - 1),
        text=some.text(some.characters(codec="utf-8")),
        filename=some.text(some.characters(codec="utf-8")),
    )
)
def test_record_is_tf_train_example(record):
    from tensorflow.train import Example

    example = Example.FromString(serialize(record))
    features = example.features.feature
    assert features["image/encoded"].bytes_list.value[:] == [record.encoded]
    assert features["image/format"].bytes_list.value[:] == [b"JPEG"]
    assert features["image/height"].int64_list.value[:] == [record.height]
    assert features["image/width"].int64_list.value[:] == [record.width]
    assert features["image/class/label"].int64_list.value[:] == [record.label]
    assert features["image/class/text"].bytes_list.value[:] == [record.text.encode()]
    assert features["image/filename"].bytes_list.value[:] == [record.filename.encode()]
    assert len(features) == 7
    assert example.SerializeToString(deterministic=True) == serialize(record)
    assert read_record(serialize(record), "here") == record


def test_tensorflow_reads_file(tmp_path):
    import tensorflow as tf

    path = tmp_path / "a.tfrecord"
    path.write_bytes(frame(RECORD) * 3)
    parsed = list(tf.data.TFRecordDataset(str(path)).map(parse_record))
    assert len(parsed) == 3
    assert {key: value.numpy() for key, value in parsed[1].items()} == {
        "encoded": RECORD.encoded,
        "height": 28,
        "width": 30,
        "label": 7,
        "text": b"Ankle boot",
        "filename": b"Ankle boot/00001.png",
    }
    assert all(value.shape == () for value in parsed[0].values())


def test_filename_that_is_not_utf8_keeps_its_bytes():
    record = Record(b"", 1, 1, 0, "a", b"a/\xff\xfe.jpg".decode("utf-8", "surrogateescape"))
    assert b"a/\xff\xfe.jpg" in serialize(record)
    assert read_record(serialize(record), "here") == record


def test_read_frames_yields_offsets():
    one = frame(RECORD)
    assert frames(one * 3) == [(len(one) * n, one[12:-4]) for n in range(3)]
    assert len(one) == len(serialize(RECORD)) + FRAMING_BYTES


def test_read_frames_detects_every_flipped_byte():
    content = frame(RECORD) * 2
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x20
        with pytest.raises(DataError, match=rf"a.tfrecord: record {2 * place // len(content)} "):
            frames(bytes(damaged))


def test_damaged_image_is_named():
    content = bytearray(frame(RECORD))
    content[content.index(b" image")] ^= 1
    with pytest.raises(DataError, match=r"made from Ankle boot/00001\.png"):
        frames(bytes(content))


def test_read_frames_detects_truncation():
    content = frame(RECORD) * 2
    for length in range(1, len(content)):
        if length == len(content) // 2:
            continue
        with pytest.raises(DataError, match="truncated"):
            frames(content[:length])


@given(some.binary(max_size=200))
def test_rubbish_is_not_an_example(content):
    # With a frame around it, so that only the Example is wrong.
    with pytest.raises(DataError, match=r"^here "):
        read_record(content, "here")


def test_fields_check_name_and_kind():
    fields = Fields(serialize(RECORD), "here")
    assert fields.get_bytes(ENCODED) == RECORD.encoded
    assert fields.get_int(LABEL) == 7
    assert "other" not in fields
    for wrong in (
        lambda: fields.get_bytes("other"),
        lambda: fields.get_int(ENCODED),
        lambda: Fields(b"\x0a\xff", "here"),
    ):
        with pytest.raises(DataError, match=r"^here "):
            wrong()


def test_fields_of_other_programs_are_read():
    from tensorflow.train import BytesList, Example, Feature, Features, FloatList, Int64List

    features = {
        "image/encoded": Feature(bytes_list=BytesList(value=[b"jpeg"])),
        "image/class/label": Feature(int64_list=Int64List(value=[3])),
        "image/object/bbox": Feature(float_list=FloatList(value=[0.1, 0.2])),
    }
    content = Example(features=Features(feature=features)).SerializeToString()
    fields = Fields(content, "here")
    assert (fields.get_int(LABEL), fields.get_bytes(ENCODED)) == (3, b"jpeg")


def test_checksum_is_crc32c():
    # A value that TensorFlow's own test of its masked CRC-32C holds.
    assert google_crc32c.value(b"123456789") == 0xE3069283


@pytest.mark.parametrize("labels", [(), (2,), (0, 2**40, 7)])
def test_multi_label_record_is_tf_train_example(labels):
    from tensorflow.train import Example

    record = replace(RECORD, label=labels, text=tuple(f"class {each}" for each in labels))
    content = serialize(record)
    assert read_record(content, "here", multi_label=True) == record
    example = Example.FromString(content)
    assert tuple(example.features.feature[LABEL].int64_list.value) == labels
    assert tuple(example.features.feature[TEXT].bytes_list.value) == tuple(
        map(str.encode, record.text)
    )
    assert Example.FromString(example.SerializeToString()) == example
    assert parse_record(content, ("labels", "height"))["labels"].numpy().tolist() == list(labels)


def test_single_label_record_is_read_as_multi_label():
    assert read_record(serialize(RECORD), "here", multi_label=True).label == (7,)
    assert parse_record(serialize(RECORD), ("labels",))["labels"].numpy().tolist() == [7]
    two = serialize(replace(RECORD, label=(1, 2), text=("a", "b")))
    with pytest.raises(DataError, match=LABEL):
        read_record(two, "here")
