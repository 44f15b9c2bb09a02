from dataclasses import replace
from pathlib import Path

import numpy as np

from library.export.exporting import FORMATS
from library.export.model_card import write_card
from library.export.samples import Samples
from library.models.scores import MULTI_LABEL
from library.prediction.ensemble import combine
from tests.prediction.test_predictor import PIXELS, make

SAMPLES = Samples("validation", [], PIXELS, PIXELS)
FIGURES = {"difference": 2.5e-7, "agreement": 0.9995}


def test_it_says_what_how_good_how_prepared_and_how_to_call_it():
    snapshot = replace(
        make(),
        metrics={"epoch": 7, "step": 70, "validation": {"loss": 0.25, "accuracy": 0.9375}},
        data={
            "examples": 1200,
            "class_counts": {"cat": 1000, "do|g": 150, "eel": 50},
            "fingerprint": "0123456789abcdef0123",
            "images": {"max_edge": 96},
        },
    )
    path = Path("out/export/pets/3")
    card = write_card(snapshot, path, dict.fromkeys(FORMATS, FIGURES), SAMPLES, 1.25)
    assert card.startswith("# pets, version 3\n")
    for words in (
        "which of 3 classes an image shows: cat, dog, eel.",
        "epoch 7 (step 70)",
        "License: not stated",
        "| saved_model | 2.5e-07 | 100.0% |",
        "on 5 images of the validation split",
        "On the validation split, by which the snapshot was chosen: loss 0.2500, accuracy 0.9375.",
        "1,200 training images (fingerprint `0123456789abcdef`)",
        r"| do\|g | 150 |",
        "shrunk to 96 pixels an edge, and squeezed to 8 x 8 pixels, 3 channels",
        "temperature 1.2500, fitted on the validation split",
        "localhost:8501/v1/models/pets:predict",
        "`model_int8.tflite`",
        "`model.onnx`",
    ):
        assert words in card, words
    card = write_card(snapshot, path, {"saved_model": FIGURES}, SAMPLES, embedding=True)
    assert "Both signatures give `embedding`, too: float32" in card


def _stored(name, accuracy, seed=0, **given):
    counts = {"cat": 10, "dog": 10, "eel": len(name)}
    return replace(
        make(seed, **given),
        metrics={"epoch": 7, "step": 70, "validation": {"accuracy": accuracy}},
        folder=Path(name),
        data={"examples": 20, "class_counts": counts, "fingerprint": name * 16},
    )


def test_what_was_combined_is_told_and_no_figure_of_its_parts_is_its_own():
    path, compared = Path("export/1"), {"saved_model": FIGURES}
    first, second = _stored("a", 0.5), _stored("b", 0.75, seed=1)
    combined = combine([combine([first, second], views=2)], [1.25])
    assert combined.metrics == {}
    card = write_card(combined, path, compared, SAMPLES, 1.25)
    for words in (
        "mean of the probabilities of 2 networks",
        f"- `a`: the snapshot of epoch 7 (step 70) of the network `{first.network.name}`",
        f"- `b`: the snapshot of epoch 7 (step 70) of the network `{second.network.name}`",
        "looked at in 2 views",
        "with several networks and several views and a temperature, it was not measured",
        "- `a`: accuracy 0.5000\n- `b`: accuracy 0.7500",
        f"`a`: 20 training images (fingerprint `{'a' * 16}`)",
        f"`b`: 20 training images (fingerprint `{'b' * 16}`)",
    ):
        assert words in card, words
    assert "by which the snapshot was chosen" not in card

    card = write_card(combine([first], [1.25]), path, compared, SAMPLES, 1.25)
    origin = f"Made from the snapshot of epoch 7 (step 70) of the network `{first.network.name}`"
    assert origin in card
    assert "with a temperature, it was not measured" in card
    assert "views" not in card
    # Learnt from the same images, they are told once.
    card = write_card(combine([first, first]), path, compared, SAMPLES)
    assert card.count("20 training images") == 1


def test_where_an_image_has_several_classes_the_card_says_from_where_on():
    card = write_card(make(head=MULTI_LABEL), Path("e/1"), {"saved_model": FIGURES}, SAMPLES)
    assert "may show several of them, or none: each class whose probability is 0.5 or more" in card
    assert "| same classes |" in card


def test_an_older_snapshot_has_a_card_too():
    card = write_card(make(), Path("export/1"), {"onnx": FIGURES}, SAMPLES)
    assert "does not tell what it learned from" in card
    assert "Not measured." in card
    assert "tensorflow/serving" not in card
    assert "temperature" not in card
    assert "embedding" not in card


def test_a_thousand_classes_are_not_all_listed():
    names = tuple(f"class {number}" for number in range(1000))
    snapshot = replace(
        make(),
        classes=names,
        data={"examples": 1000, "class_counts": dict.fromkeys(names, 1), "fingerprint": None},
    )
    card = write_card(snapshot, Path("e/1"), {}, SAMPLES)
    assert "… and 980 more." in card
    assert np.char.count(card, "class 500") == 0
