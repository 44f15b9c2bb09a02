"""A conversion that is killed, interrupted or out of disk space resumes to the same bytes."""

import errno
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from library.dataset.conversion import ConversionOptions
from library.dataset.manifest import check_hashes, read_manifest
from library.dataset.shards import ShardWriter
from library.errors import TerminatedError, UserError
from tests.conftest import ROOT, write_colors
from tests.helpers.converting import OPTIONS, contents, run


@pytest.fixture
def images(tmp_path):
    write_colors(tmp_path / "images", 30)
    return tmp_path / "images"


@pytest.fixture(scope="module")
def mortal():
    """A function that converts in a child, which may be killed: see tests/helpers/mortal.py."""
    command = [sys.executable, "-m", "tests.helpers.mortal"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as process:

        def run(**arguments):
            print(json.dumps(arguments, default=str), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


def pack(tmp_path, kind):
    """Return images as a folder, or as an archive of that kind."""
    write_colors(tmp_path / "images", 8)
    source = tmp_path / "images"
    if kind != "folder":
        source = Path(shutil.make_archive(str(tmp_path / "archive"), kind, source))
    return source


def is_whole_or_absent(folder):
    if (folder / "train.manifest.json").exists():
        check_hashes(read_manifest(folder, "train"))
    else:
        assert not list(folder.glob("[!.]*.json"))


@pytest.mark.slow
# A stream is staged by what writes the shards too: every third change is enough.
@pytest.mark.parametrize(("kind", "step"), [("folder", 1), ("gztar", 3)])
def test_conversion_killed_before_each_disk_change_resumes(tmp_path, mortal, kind, step):
    source, folder = pack(tmp_path, kind), tmp_path / "killed"
    assert mortal(source=source, folder=tmp_path / "clean")[0] == 0
    expected = contents(tmp_path / "clean")
    change, ended = 1 - step, "killed"
    while ended == "killed":
        change += step
        shutil.rmtree(folder, ignore_errors=True)
        ended, _ = mortal(source=source, folder=folder, change=change)
        is_whole_or_absent(folder)
        assert mortal(source=source, folder=folder)[0] == 0
        assert contents(folder) == expected
    assert ended == 0
    # Each of three shards alone: begun, finished, noted, named.
    assert change > 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "gztar"])
def test_conversion_killed_at_random_moments_resumes(tmp_path, mortal, kind):
    source = pack(tmp_path, kind)
    ended, whole = mortal(source=source, folder=tmp_path / "clean")
    assert ended == 0
    expected = contents(tmp_path / "clean")
    generator = random.Random(kind)
    kills = finished = 0
    while kills < 25:
        folder = tmp_path / f"killed-{finished}"
        seconds = generator.uniform(0, 0.8 * whole)
        ended, _ = mortal(source=source, folder=folder, seconds=seconds)
        is_whole_or_absent(folder)
        kills += ended == "killed"
        if ended == 0:
            assert contents(folder) == expected
            finished += 1
    assert mortal(source=source, folder=folder)[0] == 0
    assert contents(folder) == expected


@pytest.mark.slow
def test_conversion_killed_with_workers_resumes(tmp_path):
    source = pack(tmp_path, "folder")
    command = [sys.executable, str(ROOT / "convert_dataset.py"), "--tfrecord_filename", "train"]
    command += ["--dataset_dir", source, "--num_shards", "3", "--tfrecord_dir"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for folder in ("clean", *["killed"] * 3):
        with subprocess.Popen([*command, tmp_path / folder], **quiet) as process:
            if folder == "killed":
                while not (tmp_path / folder / ".train.lock").exists():
                    time.sleep(0.001)
                process.kill()
    assert subprocess.run([*command, tmp_path / "killed"], **quiet).returncode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "clean")


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left", 1),
        (KeyboardInterrupt(), "Interrupted.*kept.*resume", 130),
        (TerminatedError(), "Terminated.*kept.*resume", 143),
    ],
)
def test_failed_conversion_keeps_finished_shards(
    images, tmp_path, monkeypatch, error, reason, code
):
    def failing(writer, *arguments, write=ShardWriter.write):
        if writer.position >= 30:
            raise error
        write(writer, *arguments)

    options = ConversionOptions(OPTIONS.images, num_shards=9, num_workers=1)
    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "write", failing)
        with pytest.raises(UserError, match=reason) as caught:
            run(images, tmp_path / "shards", options)
    assert caught.value.exit_code == code
    assert sorted(contents_of_work(tmp_path / "shards")) == [
        *(f"{number:05d}.{kind}" for number in range(3) for kind in ("shard.json", "tfrecord")),
        "plan",
    ]
    resumed = run(images, tmp_path / "shards", options)
    assert resumed.fingerprint == run(images, tmp_path / "clean", options).fingerprint


def contents_of_work(folder):
    return contents(folder / ".train.converting")


def test_conversion_removes_work_folder_of_killed_one(images, tmp_path):
    run(images, tmp_path / "shards")
    expected = contents(tmp_path / "shards")
    leftover = tmp_path / "shards" / ".train.converting"
    leftover.mkdir()
    (leftover / "plan").write_text("of an earlier time")
    run(images, tmp_path / "shards")
    assert contents(tmp_path / "shards") == expected


def test_resumed_conversion_skips_finished_shards(images, tmp_path, monkeypatch):
    from library.dataset import conversion, shard_division

    options = ConversionOptions(OPTIONS.images, num_shards=9, num_workers=1)
    seen = []

    def watched(*arguments, made=conversion.batches):
        for batch in made(*arguments):
            if len(seen) == stop_after:
                raise InterruptedError
            seen.append(len(batch))
            yield batch

    monkeypatch.setattr(shard_division, "_BATCH_FILES", 10)
    monkeypatch.setattr(conversion, "batches", watched)
    stop_after = 7
    with pytest.raises(UserError, match="resume"):
        run(images, tmp_path / "shards", options)
    assert not (tmp_path / "shards" / "train.manifest.json").exists()
    seen, stop_after = [], None
    resumed = run(images, tmp_path / "shards", options)
    assert len(seen) < 9
    assert resumed.fingerprint == run(images, tmp_path / "clean", options).fingerprint
