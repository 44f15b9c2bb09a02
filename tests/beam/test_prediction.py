"""Batch prediction on Apache Beam: the local command's answers, in shards, whole or not at all."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from tests.commands.test_run import call
from tests.conftest import write_colors

pytest.importorskip("apache_beam")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Six images of colors, one of noise, and two files that can't be read."""
    folder = tmp_path_factory.mktemp("beam") / "images"
    write_colors(folder, 2, size=60, seed=9)
    (folder / "red" / "notes.jpg").write_text("no image")
    (folder / "empty.png").touch()
    return folder


def predict_on_beam(capsys, *arguments):
    return call(capsys, "predict", *map(str, arguments), "--engine=beam")


def read_results(folder):
    """The lines of all shards, once their list agrees with them."""
    folder = Path(folder)
    summary = json.loads((folder / "results.json").read_text())
    shards = {each["name"]: (folder / each["name"]).read_text() for each in summary["shards"]}
    assert sorted(each.name for each in folder.glob("*")) == sorted([*shards, "results.json"])
    assert not list(folder.glob(".*"))
    lines = [line for text in shards.values() for line in text.splitlines()]
    headers = len(shards) if next(iter(shards)).endswith("csv") else 0
    assert len(lines) == summary["images"] + headers
    return lines


MORE = ["--predict_format=jsonl", "--embedding", "--tta=3", "--unknown_rate=0.5", "--calibrate"]


@pytest.mark.parametrize("more", [[], MORE], ids=["csv", "jsonl"])
def test_predict_on_beam_matches_local_command(
    capsys, snapshot_run, images, tmp_path, more, in_root
):
    run_dir = tmp_path / "run"
    shutil.copytree(snapshot_run.folder / "best", run_dir / "best")
    options = [*snapshot_run.options, *more, "--top_k=2"]
    options[options.index("--run_dir") + 1] = str(run_dir)
    if more:
        options += [f"--ensemble={run_dir}/best,{snapshot_run.folder}"]
    arguments = (images, f"{images}/*/001.png", *options)
    code, out, local = call(capsys, "predict", *map(str, arguments))
    assert code == 0, local
    code, nothing, err = predict_on_beam(capsys, *arguments, "--predict_shards=3")
    assert (code, nothing) == (0, ""), err
    assert set(err.splitlines()) >= {
        *(line for line in local.splitlines() if str(images) in line),
        "9 images predicted, 2 unreadable",
    }
    lines = read_results(run_dir / "predictions")
    if not more:
        assert sorted({*lines}) == sorted({*out.splitlines()})
        return
    expected, found = (
        {each["file"]: each for each in sorted(map(json.loads, texts), key=len)}
        for texts in (out.splitlines(), lines)
    )
    assert len(lines) == 11
    assert found.keys() == expected.keys()
    for file, each in found.items():
        # The batches of the local command have other sizes.
        # The score is a difference of nearly equal numbers, in units of some 1e-4.
        for name, error in {"embedding": 2e-6, "unknown_score": 5e-3}.items():
            if name in each:
                other = expected[file].pop(name)
                assert each.pop(name) == pytest.approx(other, rel=1e-4, abs=error), name
        assert each == expected[file]


def test_results_are_replaced_whole_or_not_at_all(capsys, snapshot_run, images, tmp_path, in_root):
    results = tmp_path / "results"
    options = [*snapshot_run.options, f"--predict_dir={results}", "--predict_format=jsonl"]
    code, _, err = predict_on_beam(capsys, images, *options, "--predict_shards=3")
    assert code == 0, err
    (results / ".predict-0.partial").mkdir()
    code, _, err = predict_on_beam(capsys, images / "red", *options, "--predict_shards=2")
    assert code == 0, err
    before = read_results(results)
    assert len(before) == 3
    table = tmp_path / "list.csv"
    table.write_text(f"FILE,LABEL\n{images}/red/000.png,red\n,red\n")
    code, _, err = predict_on_beam(capsys, table, *options)
    assert (code, err.splitlines()[-1].count("list.csv, line 3")) == (3, 1)
    assert read_results(results) == before
    code, _, err = predict_on_beam(capsys, images / "empty.png", *options)
    assert (code, err.splitlines()[-2:]) == (
        3,
        [
            "0 images predicted, 1 unreadable",
            "run.py: error: none of the files could be predicted",
        ],
    )
    assert len(read_results(results)) == 1


def test_predict_on_beam_at_urls(capsys, snapshot_run, images, in_root):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.put(str(images), "/photos", recursive=True)
    store.pipe_file("/results/results-00000-of-00009.csv", b"of an earlier run")
    options = [*snapshot_run.options, "--predict_dir=memory://results", "--predict_shards=2"]
    code, _, err = predict_on_beam(capsys, "memory://photos", *options)
    assert code == 0, err
    assert "memory://photos/empty.png is empty" in err
    names = [f"results-0000{number}-of-00002.csv" for number in (0, 1)]
    assert sorted(store.ls("/results", detail=False)) == [
        f"/results/{each}" for each in (*names, "results.json")
    ]
    lines = b"".join(store.cat_file(f"/results/{each}") for each in names).splitlines()
    assert len(lines) == 2 + 8
    assert sum(b"memory://photos/blue/00" in each for each in lines) == 2


def test_staged_network_predicts_like_local_one_whatever_the_batch(snapshot_run, images, tmp_path):
    from library.beam.shared_folder import LocalFolder
    from library.beam.staged_network import LoadedNetwork, stage_network
    from library.prediction.calibrate import CalibratedSnapshot
    from library.prediction.ensemble import combine_snapshots
    from library.prediction.image_paths import find_images
    from library.prediction.output import PredictionFormatter
    from library.prediction.predictor import Predictor
    from library.prediction.preprocess import ImagePreprocessor, predict_files
    from library.saving.snapshots import read_snapshot

    snapshot = combine_snapshots([read_snapshot(snapshot_run.folder / "best")], [2.0])
    predictor = Predictor([snapshot], embedding=True)
    formatter = PredictionFormatter(snapshot.classes, 3, embedding_size=predictor.embedding_size)
    calibrated = CalibratedSnapshot(snapshot, temperature=2.0)
    staged = stage_network(LocalFolder(tmp_path), calibrated, formatter, xla=False)
    loaded = LoadedNetwork(staged, batch_size=6)
    files = [*find_images([f"{images}/*/0*"])]
    preprocessor = ImagePreprocessor.for_snapshot(snapshot)
    local = predict_files(files, preprocessor, predictor, 6)
    expected = [formatter.line(each).encode() for each in local]
    assert [line for _, line, _ in loaded.predict(files)] == expected
    assert [line for _, line, _ in loaded.predict(files[::-1])] == expected[::-1]
    assert [line for each in files for _, line, _ in loaded.predict([each])] == expected


@pytest.mark.parametrize("name", ["images", "images/../images/red", "images/*/0*", "list.csv"])
def test_workers_name_files_like_local_command(images, tmp_path, name):
    from library.beam.prediction import find_files
    from library.prediction.image_paths import find_images

    folder = tmp_path / "here"
    shutil.copytree(images, folder / "images")
    (folder / "list.csv").write_text(f"FILE\nimages/red/000.png\n{folder}/images/red/001.png\n")
    with contextlib.chdir(folder):
        expected = [(each.name, each.location.read()) for each in find_images([name])]
    found = find_files(name, str(folder), ())
    assert [(each.name, each.location.read()) for each in found] == expected


def test_batches_span_paths(images, tmp_path):
    from library.beam.prediction import PredictionJob, find_batches

    job = PredictionJob((), (), 2, print)
    paths = [str(images).encode(), *(bytes(each) for each in images.glob("*/*.png"))]
    batches = [*find_batches(paths, "", job)]
    assert [len(each) for each in batches] == [8, 6]
    archive = shutil.make_archive(tmp_path / "images", "gztar", images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("library.beam.prediction._MAX_BYTES", 1)
        found = [*find_batches([archive.encode()], "", job)]
    assert max(sum(file.size > 0 for file in each) for each in found) == 1


def test_lost_results_are_an_error(tmp_path):
    from library.beam.prediction_folder import ShardWriter, publish, staging_folder
    from library.errors import UserError

    with staging_folder(str(tmp_path)) as staging:
        writer = ShardWriter(staging, 1, "jsonl", ())
        writer.write_list([writer.write(0, [2, (b"{}", None), 0])])
        with pytest.raises(UserError, match="1 of 2"):
            publish(staging, str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("predict README.md --engine=beam --beam_options --runner=Nowhere", 2, "Nowhere"),
        ("predict README.md --predict_dir=results", 2, "predict_dir"),
        ("predict no_such_place --engine=beam", 3, "no_such_place"),
        ("predict README.md --engine=beam --ensemble=docs", 4, "docs"),
        ("train --engine=beam --dry_run", 2, "engine beam"),
    ],
)
def test_errors_are_one_line(capsys, snapshot_run, tmp_path, arguments, code, words, in_root):
    found, out, err = call(capsys, *arguments.split(), *snapshot_run.options)
    assert (found, out) == (code, "")
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.slow
def test_predict_on_beam_in_two_processes(capsys, snapshot_run, images, tmp_path, in_root):
    options = [*snapshot_run.options, f"--predict_dir={tmp_path}/results"]
    beam_options = "--direct_num_workers=2 --direct_running_mode=multi_processing"
    code, out, err = call(capsys, "predict", str(images), *snapshot_run.options)
    assert code == 0, err
    code, _, err = predict_on_beam(capsys, images, *options, f"--beam_options={beam_options}")
    assert code == 0, err
    assert {*read_results(tmp_path / "results")} == {*out.splitlines()}
