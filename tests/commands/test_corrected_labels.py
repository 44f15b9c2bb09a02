"""From wrong labels to a better network, by the commands that a person would type."""

import json
import random

import pytest

from library.cleaning.decisions import Review
from library.cleaning.suspects import read_suspects
from library.dataset.manifest import read_manifest
from tests.commands.test_run import call
from tests.conftest import ROOT, convert, write_colors


@pytest.mark.slow
def test_corrected_labels_make_a_better_network(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    data, images = tmp_path / "data", tmp_path / "images"
    write_colors(images, 20, seed=3)
    truth = {}
    for path in random.Random(1).sample(sorted(images.glob("*/*.png")), 15):
        wrong = {"blue": "green", "green": "red", "red": "blue"}[path.parent.name]
        target = images / wrong / f"wrong_{path.name}"
        path.rename(target)
        truth[f"{wrong}/{target.name}"] = path.parent.name
    write_colors(tmp_path / "validation", 10, seed=4)
    convert(images, data, "train")
    convert(tmp_path / "validation", data, "validation")

    def train(name):
        words = "--model=simple --image_size=8 --batch_size=16 --train_epochs=3 --no-report "
        words += f"--learning_rate=0.01 --data_dir={data} --run_dir={tmp_path / name}"
        assert call(capsys, *words.split())[0] == 0
        return json.loads((tmp_path / name / "best" / "metrics.json").read_text())["value"]

    before = train("before")
    assert call(capsys, "clean", f"--data_dir={data}", f"--run_dir={tmp_path / 'before'}")[0] == 0
    folder = tmp_path / "before" / "cleaning"
    review = Review(folder)
    undecided = {"action": "undecided", "labels": []}
    for each in read_suspects(folder).suspects:
        label = truth.get(each.file)
        decision = {"action": "relabel", "labels": [label]} if label else {"action": "keep"}
        request = {"id": each.id, "labels": [], "expected": undecided, **decision}
        assert "message" not in review.decide({"version": review.state()["version"], **request})
    # All wrong labels were among the suspects, which are found again under other names, too.
    renamed = next(path for path in images.glob("*/wrong_*"))
    renamed.rename(renamed.with_name("renamed.png"))
    convert(images, data, "train", "--corrections", str(folder / "corrections.csv"))
    manifest = read_manifest(data / "train", "train")
    assert manifest.class_counts == (20, 20, 20)
    assert manifest.settings["corrections"]["relabeled"] == 15
    assert train("after") < before / 4
