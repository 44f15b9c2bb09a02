"""Evaluation, prediction, training and caches see the same pixels, whatever the fit."""

import numpy as np
import pytest
from PIL import Image

from library.dataset.splits import read_splits
from library.dataset.unconverted import read_unconverted
from library.inputs.aspect_ratio import CROP, PAD, Fit
from library.prediction.preprocess import ImagePreprocessor
from library.saving.snapshots import DATA, read_snapshot, write_snapshot
from project import assembly
from project.load_network import make_inputs_for
from project.settings import read_settings
from tests.conftest import ROOT, convert
from tests.helpers.networks import make_snapshot

SHAPES = [(20, 50), (60, 21), (33, 33), (1, 40), (150, 90)]
FITS = {
    "crop": (["--fit=crop", "--crop_fraction=0.9"], Fit(CROP, 0.9)),
    "pad": (["--fit=pad"], Fit(PAD, background=(16, 32, 48))),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with images of mixed shapes, as JPEGs in `images` and converted in `data`."""
    folder, random = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "images/train" / name).mkdir(parents=True)
        for number, shape in enumerate(SHAPES):
            pixels = random.integers(0, 256, (*shape, 3), np.uint8)
            path = folder / "images/train" / name / f"{number}.jpg"
            Image.fromarray(pixels).save(path)
    convert(folder / "images/train", folder / "data", "train", "--background=#102030")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_all_paths_see_the_same_pixels(photographs, tmp_path, monkeypatch, name):
    words, fit = FITS[name]
    monkeypatch.chdir(ROOT)
    (split,) = read_splits(photographs / "data", "train")
    unconverted = read_unconverted(photographs / "images", ["train"], "folder")[0]

    def settings_of(*more):
        given = ["--image_size=16", "--batch_size=32", "--augmentations="]
        given.append(f"--cache_dir={photographs}/cache")
        return read_settings([*given, *words, *more])

    settings = settings_of()
    # A snapshot carries the fit and the background to where no settings are.
    texts = assembly.make_run_paths(settings, split).texts
    made = make_snapshot(size=16, classes=("cat", "dog"))
    write_snapshot(tmp_path / "best", made.network, made.classes, {}, {DATA: texts[DATA]})
    snapshot = read_snapshot(tmp_path / "best")
    assert snapshot.image_format.fit == fit
    inputs = {
        "disk": assembly.make_evaluation_inputs(settings_of("--cache=disk"), split),
        # A snapshot's own fit counts, not that of the settings.
        "snapshot": make_inputs_for(snapshot, read_settings(["--fit=crop"]), split),
        "unconverted": make_inputs_for(snapshot, settings, unconverted),
    }
    preprocessor = ImagePreprocessor.for_snapshot(snapshot)
    expected = {
        f"{path.parent.name}/{path.name}".encode(): preprocessor.preprocess(path.read_bytes())
        for path in (photographs / "images/train").glob("*/*")
    }
    for path, each in inputs.items():
        ((images, _, names),) = each.named_batches().as_numpy_iterator()
        assert set(names) == expected.keys()
        for key, pixels in zip(names, images, strict=True):
            assert np.array_equal(pixels, expected[key]), (path, key)
    # Without a random crop, training sees them too.
    training = assembly.make_training_inputs(settings_of("--cache=memory"), split)
    ((trained, _),) = training.batches(0).as_numpy_iterator()
    assert sorted(each.tobytes() for each in trained) == sorted(
        each.tobytes() for each in expected.values()
    )
