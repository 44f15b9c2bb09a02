import keras
import numpy as np
import pytest

from library.explaining.explanation import Picture, choose_pictures, class_names, explain_pictures
from library.explaining.grad_cam import HIRES_CAM
from library.explaining.neighbors import make_embedding
from library.models.scores import MULTI_LABEL
from project.networks import NETWORKS

CLASSES = ("cat", "dog", "owl")
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([1, 1, 1, 0, 0, 2, 1, 0, 2])


class Source:
    def find_corruption(self):
        return None


class Inputs:
    """A split as EvaluationInputs gives it, from arrays."""

    source = Source()

    def __init__(self, labels=LABELS):
        self.labels = labels

    def named_batches(self):
        for start in (0, 4, 8):
            here = slice(start, start + 4)
            names = np.array([f"{each}.png".encode() for each in range(9)], object)
            yield PIXELS[here], self.labels[here], names[here]


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return NETWORKS["simple"]((8, 8, 3), 3)


def test_pictures_are_chosen_of_as_many_classes_as_may_be():
    chosen = choose_pictures(Inputs(), CLASSES, 3)
    assert [each.name for each in chosen] == ["0.png", "3.png", "5.png"]
    assert [each.truths for each in chosen] == [("dog",), ("cat",), ("owl",)]
    assert np.array_equal(chosen[1].pixels, PIXELS[3])
    assert [each.name for each in choose_pictures(Inputs(), CLASSES, 5)] == [
        f"{each}.png" for each in (0, 1, 3, 4, 5)
    ]
    assert len(choose_pictures(Inputs(), CLASSES, 100)) == 9


def test_an_answer_tells_classes_heat_and_nearest_images(network):
    pictures = [Picture("a.png", PIXELS[0], ("owl",)), Picture("b.png", PIXELS[1])]
    explanation = explain_pictures(network, CLASSES, pictures, Inputs(), nearest=2)
    assert explanation.method == HIRES_CAM
    assert explanation.kernels.shape[2] == 3
    assert [each.name for each in explanation.layers][-1] == "scores"
    scores = network(PIXELS[:2].astype(np.float32)).numpy()
    for answer, row, number in zip(explanation.answers, scores, (0, 1), strict=True):
        likeliest = CLASSES[row.argmax()]
        assert answer.ranking[0][0] == likeliest
        exponents = np.exp(row - row.max())
        assert answer.ranking[0][1] == pytest.approx(exponents.max() / exponents.sum(), rel=1e-5)
        assert sum(each for _, each in answer.ranking) == pytest.approx(1)
        assert list(answer.heats) == list(dict.fromkeys((likeliest, *(("owl",) * (number == 0)))))
        near, names = answer.nearest[0]
        assert (near.number, names) == (number, ("dog",))
        assert len(answer.nearest) == 2
    assert explanation.answers[0].is_right == (explanation.answers[0].ranking[0][0] == "owl")
    assert explanation.answers[1].is_right is None


def test_without_training_images_there_are_no_nearest(network):
    (answer,) = explain_pictures(network, CLASSES, [Picture("a", PIXELS[0])]).answers
    assert answer.nearest == ()


def test_several_classes_may_be_right_at_once():
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(pixels))
    network = keras.Model(pixels, keras.layers.Dense(3, name=MULTI_LABEL)(x))
    labels = np.eye(3, dtype=np.float32)[LABELS]
    labels[0] = [1, 1, 0]
    assert class_names(labels[0], CLASSES) == ("cat", "dog")
    pictures = choose_pictures(Inputs(labels), CLASSES, 1)
    (answer,) = explain_pictures(network, CLASSES, pictures, Inputs(labels), nearest=1).answers
    assert answer.picture.truths == ("cat", "dog")
    assert set(answer.heats) >= {"cat", "dog"}
    assert answer.nearest[0][1] == ("cat", "dog")
    scores = network(PIXELS[:1].astype(np.float32)).numpy()[0]
    assert dict(answer.ranking)["owl"] == pytest.approx(1 / (1 + np.exp(-scores[2])), abs=1e-5)
    assert make_embedding(network)(PIXELS[:1]).shape == (1, 72)
