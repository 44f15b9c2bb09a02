"""Conversion on Beam, on the DirectRunner within this process: the local engine is the oracle."""

import csv
import shutil

import pytest

import convert_dataset
from library.errors import DataError, SettingsError, UserError
from tests.conftest import write_colors, write_patches
from tests.helpers.converting import contents

BEAM = ("--engine", "beam")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Colors, one of them unusable, as a folder, a zip and a compressed tar; patches in a CSV."""
    parent = tmp_path_factory.mktemp("images")
    write_colors(parent / "colors", 15)
    (parent / "colors" / "red" / "x.png").write_bytes(b"rubbish")
    for kind in ("zip", "gztar"):
        shutil.make_archive(str(parent / "colors"), kind, parent / "colors")
    write_patches(parent / "patches")
    rows = [("file", "sha256", "action", "label", "new_label", "reason", "date")]
    rows += [("red/001.png", "", "relabel", "red", "blue", "", ""), ("red/2.png", "", "drop")]
    rows[2] = ("red/002.png", "", "drop", "red", "", "", "")
    with (parent / "corrections.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return parent


def convert(source, folder, *options):
    options = ["--max_bad_fraction", "0.1", "--num_workers", "1", *map(str, options)]
    convert_dataset.main(["--dataset_dir", str(source), "--tfrecord_dir", str(folder), *options])


def tree(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("colors", ["--tfrecord_filename=train", "--num_shards=4"]),
        ("colors.zip", ["--tfrecord_filename=train", "--max_edge=8"]),
        ("colors.tar.gz", ["--tfrecord_filename=train", "--num_shards=3"]),
        (
            "patches/patches.csv/train",
            ["--tfrecord_filename=train", "--label_separator=|", "--num_shards=2"],
        ),
        ("colors", ["--split=validation=0.3", "--corrections={}/corrections.csv"]),
        ("colors", ["--split=folds=2", "--group_by=[0-9]{3}|x", "--num_shards=1"]),
    ],
    ids=["folder", "zip", "compressed tar", "CSV", "split", "folds"],
)
def test_beam_writes_bytes_of_local_engine(images, tmp_path, source, options):
    options = [each.replace("{}/", f"{images}/") for each in options]
    convert(images / source, tmp_path / "local", *options)
    convert(images / source, tmp_path / "beam", *options, *BEAM)
    assert tree(tmp_path / "beam") == tree(tmp_path / "local")


def test_repeated_bundles_leave_one_shard_each(images, tmp_path):
    options = ["--tfrecord_filename=train", "--num_shards=3"]
    convert(images / "colors", tmp_path / "local", *options)
    repeat = "--beam_options=--direct_runner_bundle_repeat=1"
    convert(images / "colors", tmp_path / "beam", *options, *BEAM, repeat)
    assert tree(tmp_path / "beam") == tree(tmp_path / "local")


def test_too_many_unusable_files_are_refused_as_locally(images, tmp_path):
    source = tmp_path / "colors"
    shutil.copytree(images / "colors", source)
    for number in range(8):
        (source / "red" / f"{number:03d}.png").write_bytes(b"")
    messages = []
    for engine in ("local", "beam"):
        with pytest.raises(DataError) as raised:
            convert(source, tmp_path / engine, "--tfrecord_filename=train", "--engine", engine)
        messages.append(str(raised.value))
        assert not tree(tmp_path / engine)
    assert messages[0] == messages[1]


def test_failed_pipeline_leaves_earlier_split(images, tmp_path, monkeypatch):
    from library.beam.write_shard import WriteShard

    folder = tmp_path / "shards"
    convert(images / "colors", folder, "--tfrecord_filename=train")
    before = contents(folder)
    written = []

    def fail(step, shard, number, file, write=WriteShard._write):
        write(step, shard, number, file)
        written.append(number)
        if len(written) == 3:
            raise OSError("the disk is gone")

    monkeypatch.setattr(WriteShard, "_write", fail)
    options = ["--tfrecord_filename=train", "--num_shards=5", "--overwrite", *BEAM]
    with pytest.raises(UserError, match="the disk is gone") as raised:
        convert(images / "colors", folder, *options)
    assert raised.value.exit_code == 1
    assert contents(folder) == before


def test_beam_options_need_engine_beam(images, tmp_path):
    with pytest.raises(SettingsError, match="beam_options"):
        convert(images / "colors", tmp_path, "--beam_options", "--runner=DirectRunner")


def test_beam_writes_to_url_what_local_engine_writes_there(images, tmp_path, bucket, monkeypatch):
    from library.dataset.storage import open_store

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store, path = open_store(bucket)
    store.put(str(images / "colors"), f"{path}/colors", recursive=True)
    found = []
    for engine in ("local", "beam"):
        options = ["--tfrecord_filename=train", "--num_shards=3", "--engine", engine]
        convert(f"{bucket}/colors", f"{bucket}/{engine}", *options)
        store.invalidate_cache()
        names = store.find(f"{path}/{engine}")
        found.append({name.partition(engine)[2]: store.cat_file(name) for name in names})
    assert found[0] == found[1]
    assert len(found[0]) == 5
