import csv
import io
import logging
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.dataset import conversion
from library.dataset.conversion import ConversionOptions, Source, convert
from library.dataset.images import ImageOptions
from library.dataset.locations import RemoteLocation
from library.dataset.manifest import check_hashes, manifest_path, read_manifest
from library.dataset.sources.find import find_files
from library.errors import DataError, SettingsError, UnreachableError, UserError
from library.files import in_use, locked
from tests.conftest import write_colors
from tests.helpers.converting import OPTIONS, contents, records, run
from tests.helpers.jpeg_variants import PLAIN


@pytest.fixture
def images(tmp_path):
    write_colors(tmp_path / "images", 30)
    return tmp_path / "images"


def test_convert_writes_each_image_with_its_class(images, tmp_path):
    manifest = run(images, tmp_path / "shards")
    found = list(records(manifest))
    assert manifest.classes == ("blue", "green", "red")
    assert manifest.class_counts == (30, 30, 30)
    assert sorted(each.filename for each in found) == sorted(
        path.relative_to(images).as_posix() for path in images.rglob("*.png")
    )
    for each in found:
        assert each.text == manifest.classes[each.label] == each.filename.split("/")[0]
        red, green, blue = np.asarray(Image.open(io.BytesIO(each.encoded))).mean(axis=(0, 1))
        assert each.text == max(zip((red, green, blue), ("red", "green", "blue"), strict=True))[1]
    assert read_manifest(tmp_path / "shards", "train") == manifest
    check_hashes(manifest)


def test_seed_shuffles_classes(images, tmp_path):
    names = [
        [each.filename for each in records(run(images, tmp_path / f"{seed}", options))]
        for seed, options in (
            (0, OPTIONS),
            (1, ConversionOptions(OPTIONS.images, num_workers=2)),
            (2, ConversionOptions(OPTIONS.images, random_seed=5)),
        )
    ]
    assert names[0] == names[1] != names[2]
    assert sorted(names[0]) == sorted(names[2]) != names[0]
    # Each tenth of the data has all three classes.
    for first in range(0, 90, 30):
        assert len({name.split("/")[0] for name in names[0][first : first + 30]}) == 3


@pytest.mark.parametrize("wanted", [1, 2, 7, 90, 500])
def test_num_shards_is_met_without_empty_shards(images, tmp_path, wanted):
    options = ConversionOptions(OPTIONS.images, num_shards=wanted, num_workers=1)
    manifest = run(images, tmp_path / "shards", options)
    assert len(manifest.shards) == min(wanted, 90)
    counts = [shard.examples for shard in manifest.shards]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1


def test_shard_without_usable_images_is_dropped(tmp_path):
    write_colors(tmp_path / "images", 1)
    (tmp_path / "images" / "red" / "x.png").write_bytes(b"rubbish")
    options = ConversionOptions(OPTIONS.images, num_shards=4, max_bad_fraction=0.5)
    manifest = run(tmp_path / "images", tmp_path / "shards", options)
    assert [shard.examples for shard in manifest.shards] == [1, 1, 1]
    assert manifest.shards[2].file == "train_00002-of-00003.tfrecord"


def test_shards_end_at_size(images, tmp_path, monkeypatch):
    monkeypatch.setattr("library.dataset.shard_division.SHARD_BYTES", 5000)
    manifest = run(images, tmp_path / "shards")
    assert len(manifest.shards) > 8
    assert all(shard.bytes >= 5000 for shard in manifest.shards[:-1])


def test_every_kind_of_source_gives_same_bytes(images, tmp_path):
    results = []
    for kind in ("folder", "zip", "tar", "gztar"):
        source = images
        if kind != "folder":
            source = Path(shutil.make_archive(str(tmp_path / kind), kind, images))
        manifest = run(source, tmp_path / f"from-{kind}")
        results.append(manifest.fingerprint)
    again = run(tmp_path / "from-folder" / "train.manifest.json", tmp_path / "again")
    assert {*results, again.fingerprint} == {results[0]}


def test_compressed_tar_rejects_as_folder_does(images, tmp_path):
    (images / "red" / "x.png").write_bytes(b"rubbish")
    options = ConversionOptions(OPTIONS.images, max_bad_fraction=0.1)
    tar = Path(shutil.make_archive(str(tmp_path / "tar"), "gztar", images))
    one, other = run(images, tmp_path / "a", options), run(tar, tmp_path / "b", options)
    assert one.fingerprint == other.fingerprint
    assert one.rejected == other.rejected
    rejected = [tmp_path / each / "train.rejected.csv" for each in ("a", "b")]
    assert rejected[0].read_bytes() == rejected[1].read_bytes()


def test_unusable_images_are_listed_with_reason(images, tmp_path):
    (images / "red" / "a, b.png").write_bytes(b"rubbish")
    (images / "red" / "empty.png").write_bytes(b"")
    (images / "1.png").write_bytes((images / "red" / "000.png").read_bytes())
    options = ConversionOptions(OPTIONS.images, max_bad_fraction=0.05)
    manifest = run(images, tmp_path / "shards", options)
    assert (manifest.examples, manifest.rejected_count) == (90, 3)
    rejected = (tmp_path / "shards" / "train.rejected.csv").read_text()
    rows = list(csv.reader(io.StringIO(rejected)))
    assert sorted(rows[1:]) == [
        ["1.png", "", "can't be read: it lies beside the class folders, so it has no class"],
        ["red/a, b.png", "red", "is not a JPEG, PNG, GIF, BMP, TIFF or WebP image"],
        ["red/empty.png", "red", "is empty"],
    ]
    # A clean conversion afterwards leaves no list of what is no longer true.
    for name in ("red/a, b.png", "red/empty.png", "1.png"):
        (images / name).unlink()
    run(images, tmp_path / "shards", options)
    assert not (tmp_path / "shards" / "train.rejected.csv").exists()


def test_network_failure_rejects_nothing_and_resumes(images, tmp_path):
    pytest.importorskip("fsspec")
    wanted = run(images, tmp_path / "wanted", replace(OPTIONS, num_shards=3))

    class RemoteSource(Source):
        def find(self):
            for file in find_files(images):
                # Reading a folder as a file fails as a store does that can't be reached.
                is_down = network_is_down and file.name == "red/007.png"
                path = images if is_down else file.location.path
                yield file._replace(location=RemoteLocation(f"file://{path}"))

    network_is_down, options = True, replace(OPTIONS, num_shards=3)
    source = RemoteSource("remote", "train")
    with pytest.raises(UnreachableError, match="resume"):
        convert(source, tmp_path / "shards", "train", options)
    assert (tmp_path / "shards" / ".train.converting").is_dir()
    network_is_down = False
    done = convert(source, tmp_path / "shards", "train", options)
    assert [shard.sha256 for shard in done.shards] == [shard.sha256 for shard in wanted.shards]


def test_too_many_bad_images_change_nothing(images, tmp_path):
    run(images, tmp_path / "shards")
    before = contents(tmp_path / "shards")
    (images / "red" / "x.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"1 of 91 .*red/x\.png"):
        run(images, tmp_path / "shards")
    assert contents(tmp_path / "shards") == before
    with pytest.raises(DataError, match="max_bad_fraction"):
        run(images, tmp_path / "elsewhere")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_class_without_usable_image_is_refused(images, tmp_path):
    (images / "cat").mkdir()
    (images / "cat" / "x.png").write_bytes(b"rubbish")
    options = ConversionOptions(OPTIONS.images, max_bad_fraction=0.5)
    with pytest.raises(DataError, match=r"'cat'.*cat/x"):
        run(images, tmp_path / "shards", options)
    assert not list((tmp_path / "shards").iterdir())


def test_wrong_folders_are_refused(images, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        run(tmp_path / "empty", tmp_path / "shards")
    (tmp_path / "flat").mkdir()
    shutil.copy(images / "red" / "000.png", tmp_path / "flat")
    with pytest.raises(DataError, match="have no class"):
        run(tmp_path / "flat", tmp_path / "shards")
    shutil.copytree(images, tmp_path / "data" / "train")
    shutil.copytree(images, tmp_path / "data" / "test")
    with pytest.raises(DataError, match=r"\(test, train\)"):
        run(tmp_path / "data", tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_shards_among_images_are_ignored(images):
    first = run(images, images)
    assert run(images, images).fingerprint == first.fingerprint
    assert first.examples == 90


def test_second_conversion_replaces_first(images, tmp_path):
    folder = tmp_path / "shards"
    run(images, folder, ConversionOptions(OPTIONS.images, num_shards=9))
    options = ConversionOptions(OPTIONS.images, num_shards=2, overwrite=True)
    manifest = run(images, folder, options)
    shards = [each.file for each in manifest.shards]
    assert sorted(contents(folder)) == [".train.keys", "train.manifest.json", *shards]


def test_split_of_other_settings_is_replaced_only_on_request(images, tmp_path, caplog):
    folder = tmp_path / "shards"
    caplog.set_level(logging.INFO)
    logging.getLogger("library").addHandler(caplog.handler)
    run(images, folder)
    before = contents(folder)
    options = replace(OPTIONS, images=ImageOptions(max_edge=16), random_seed=3)
    with pytest.raises(SettingsError, match="--overwrite") as caught:
        run(images, folder, options)
    assert "max_edge was 32, now 16; random_seed was 0, now 3" in str(caught.value)
    assert contents(folder) == before
    assert not caplog.records
    run(images, folder, replace(options, overwrite=True))
    # Other images are no other settings.
    (images / "red" / "000.png").unlink()
    run(images, folder, options)
    logging.getLogger("library").removeHandler(caplog.handler)
    assert ["replacing 90 images of 3" in each for each in caplog.messages] == [True, True]


def test_finished_conversion_is_repeated_only_if_damaged(images, tmp_path, monkeypatch):
    manifest = run(images, tmp_path / "shards")
    stamps = [path.stat().st_mtime_ns for path in manifest.paths]
    with monkeypatch.context() as patched:
        # Nothing is written at all: the disk may be read-only.
        patched.setattr("library.dataset.conversion.locked", None)
        assert run(images, tmp_path / "shards") == manifest
    assert [path.stat().st_mtime_ns for path in manifest.paths] == stamps
    content = bytearray(manifest.paths[0].read_bytes())
    content[100] ^= 1
    manifest.paths[0].write_bytes(content)
    check_hashes(run(images, tmp_path / "shards"))


def test_concurrent_conversions_of_split_are_refused(images, tmp_path):
    message = rf"the split train in .*shards is in use by process {os.getpid()} on .*: wait for it"
    with locked(tmp_path / "shards" / ".train.lock", "", ""):
        with pytest.raises(UserError, match=message):
            run(images, tmp_path / "shards")
        run(images, tmp_path / "shards", name="test")
    assert "test.manifest.json" in contents(tmp_path / "shards")


def test_what_an_earlier_version_converted_is_converted_again(images, tmp_path, monkeypatch):
    bad = PLAIN.replace(b"\xff\xc4\0\x1f\0\0", b"\xff\xc4\0\x1f\0\xff")
    (images / "red" / "bad.jpg").write_bytes(bad)
    options = replace(OPTIONS, max_bad_fraction=0.1)
    with monkeypatch.context() as earlier:
        earlier.setattr(conversion, "_ENCODER_VERSION", 1)
        first = run(images, tmp_path / "shards", options)
        assert run(images, tmp_path / "shards", options) == first
    again = run(images, tmp_path / "shards", options)
    assert again.settings["plan"] != first.settings["plan"]
    assert [each["file"] for each in again.rejected] == ["red/bad.jpg"]


def test_unused_bits_are_counted_in_a_warning(images, tmp_path, caplog):
    dark = Image.fromarray(np.full((40, 40), 4000, np.uint16))
    for number in range(3):
        dark.save(images / "red" / f"dark{number}.png")
    run(images, tmp_path / "shards")
    (warning,) = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert re.search(r"^3 images .*\b12 of 16 bits.* red/dark\d\.png", warning)


def test_split_is_not_replaced_while_a_training_reads_it(images, tmp_path):
    folder = tmp_path / "shards"
    manifest = run(images, folder)
    before = contents(folder)
    (images / "red" / "000.png").unlink()
    with in_use([manifest_path(folder, "train")]):
        with pytest.raises(UserError, match=r"train in .* is being read"):
            run(images, folder)
        assert contents(folder) == before
    assert run(images, folder).examples == manifest.examples - 1
