"""Conversion on Beam, on the DirectRunner within this process: the local engine is the oracle."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import convert_dataset
from library.errors import DataError, SettingsError, UserError
from tests.conftest import ROOT, write_colors, write_patches
from tests.helpers.converting import contents

BEAM = ("--engine", "beam")
PROCESSES = "--direct_num_workers=2 --direct_running_mode=multi_processing"


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


# Each bundle is run twice, as after a failure.
REPEAT = "--beam_options=--direct_runner_bundle_repeat=1"


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("colors", ["--tfrecord_filename=train", "--num_shards=4"]),
        ("colors.zip", ["--split=validation=0.3", "--corrections={}/corrections.csv"]),
        ("colors.tar.gz", ["--split=folds=2", "--group_by=[0-9]{3}|x", "--num_shards=1"]),
        (
            "patches/patches.csv/train",
            ["--tfrecord_filename=train", "--label_separator=|", "--num_shards=2"],
        ),
    ],
    ids=["folder", "split of zip", "folds of compressed tar", "CSV"],
)
def test_beam_writes_bytes_of_local_engine(images, tmp_path, source, options):
    options = [each.replace("{}/", f"{images}/") for each in options]
    convert(images / source, tmp_path / "local", *options)
    convert(images / source, tmp_path / "beam", *options, *BEAM, REPEAT)
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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def many_images(tmp_path_factory):
    """A folder of 6,000 small images, which take a second."""
    folder = tmp_path_factory.mktemp("many")
    write_colors(folder, 1)
    for path in list(folder.rglob("*.png")):
        for number in range(1, 2000):
            os.link(path, path.with_name(f"{number:04d}.png"))
    return folder


def children(process, program):
    """The ids of a process's children that run a module."""
    # By the threads that started them.
    found = [
        each
        for path in Path(f"/proc/{process}/task").glob("*/children")
        for each in path.read_text(encoding="utf-8").split()
    ]
    return [int(each) for each in found if program in command_of(each)]


def command_of(process):
    return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8")


def has_begun(folder):
    return any(".tfrecord" in each.name for each in folder.glob(".train.converting/*/.*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(("event", "code"), [(None, 0), ("worker", 1), (signal.SIGTERM, 143)])
def test_two_processes_write_all_or_nothing(many_images, tmp_path, event, code):
    folder = tmp_path / "shards"
    command = [sys.executable, str(ROOT / "convert_dataset.py"), "--dataset_dir", many_images]
    command += ["--tfrecord_filename=train", "--num_shards=4", "--tfrecord_dir", folder, *BEAM]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "--beam_options", PROCESSES], **pipes) as process:
        while event and not has_begun(folder):
            assert process.poll() is None
            time.sleep(0.01)
        workers = children(process.pid, "library.beam.harness") if event else []
        if event == "worker":
            os.kill(workers[0], signal.SIGKILL)
        elif event:
            process.send_signal(event)
        _, errors = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in errors
    if event:
        assert len(workers) == 2
        assert not any(Path(f"/proc/{each}").exists() for each in workers)
        assert not tree(folder)
        assert errors.splitlines()[-1].count("the pipeline failed") == (event == "worker")
    else:
        convert(many_images, tmp_path / "local", "--tfrecord_filename=train", "--num_shards=4")
        assert tree(folder) == tree(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_dask_cluster_writes_bytes_of_local_engine(images, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = ["--tfrecord_filename=train", "--num_shards=4"]
    convert(images / "colors", tmp_path / "local", *options)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="") as dask:
        runner = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner --dask_npartitions=4"
        runner += f" --dask_client_address={dask.scheduler_address}"
        convert(images / "colors", tmp_path / "beam", *options, *BEAM, "--beam_options", runner)
    assert tree(tmp_path / "beam") == tree(tmp_path / "local")
