import importlib

import numpy as np
import pytest
import tensorflow as tf

from library.augmentation.color import brightness_matrix
from library.augmentation.geometry import translation_matrix
from library.augmentation.pipeline import (
    BATCH,
    COLOR,
    CROP,
    GEOMETRIC,
    Augmentation,
    Augmentations,
)
from library.errors import SettingsError

IMAGE = tf.constant(np.arange(48).reshape(4, 4, 3), tf.uint8)
SEED = tf.constant([1, 2], tf.int64)


def add(image, strength, seed):
    return image + tf.cast(strength, tf.uint8)


def double(image, strength, seed):
    return image * 2


KNOWN = {
    "add": Augmentation(add, 3, 9),
    "double": Augmentation(double, 1, 1),
    "light": Augmentation(lambda mean, strength, seed: brightness_matrix(strength), 5, 50, COLOR),
    "right": Augmentation(
        lambda size, strength, seed: translation_matrix(-strength, 0.0), 1, 3, GEOMETRIC
    ),
    "corner": Augmentation(lambda shape, strength, seed: tf.constant([0, 0, 2, 2]), 1, 1, CROP),
    "other": Augmentation(lambda shape, strength, seed: tf.constant([0, 0, 3, 3]), 1, 1, CROP),
    "swap": Augmentation(lambda images, targets, *_: (images[::-1], targets[::-1]), 1, 1, BATCH),
}


def changed(*words):
    chosen = Augmentations(words, KNOWN)
    return chosen.apply(IMAGE, chosen.seeds(SEED)).numpy()


def test_apply_follows_the_order_of_the_words():
    assert np.array_equal(changed("add", "double"), (IMAGE.numpy() + 3) * 2)
    assert np.array_equal(changed("double", "add=4"), IMAGE.numpy() * 2 + 4)
    assert np.array_equal(changed("light", "light=2", "double"), (IMAGE.numpy() + 7) * 2)
    assert np.array_equal(changed("right", "right")[:, 2:], IMAGE.numpy()[:, :2])
    assert np.array_equal(changed(), IMAGE)


def test_fingerprint_depends_on_words_strengths_and_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code, seen = tmp_path / "edited_augmentation.py", []
    code.write_text("def change(image, strength, seed):\n    return image\n")
    change = importlib.import_module("edited_augmentation").change

    def look(word="change", strength=1, function=change):
        known = {word: Augmentation(function, strength, 9)}
        seen.append(Augmentations([word], known).fingerprint)

    look()
    look()
    assert seen[0] == seen.pop()
    look("word")
    look(strength=2)  # What the bare word means.
    look(function=tf.function(add))
    code.write_text(code.read_text() + "\n")
    look()
    assert len(set(seen)) == 5


def test_crop_and_mix_are_separate_from_apply():
    chosen = Augmentations(["add", "corner", "swap"], KNOWN)
    assert chosen.has_crop
    assert chosen.has_mixing
    seeds = chosen.seeds(SEED)
    assert chosen.crop(seeds)(tf.constant([4, 4, 3])).numpy().tolist() == [0, 0, 2, 2]
    assert np.array_equal(chosen.apply(IMAGE, seeds), IMAGE.numpy() + 3)
    images, targets = chosen.mix(tf.range(3), tf.range(3), tf.stack([seeds] * 3))
    assert images.numpy().tolist() == targets.numpy().tolist() == [2, 1, 0]
    plain = chosen.crop_only()
    assert plain.has_crop
    assert not plain.has_mixing
    assert np.array_equal(plain.apply(IMAGE, plain.seeds(SEED)), IMAGE)
    assert Augmentations([], KNOWN).crop(None) is None


def test_seeds_are_one_per_word_and_depend_on_the_example():
    chosen = Augmentations(["add", "add", "double"], KNOWN)
    seeds = chosen.seeds(SEED).numpy()
    assert seeds.shape == (3, 2)
    assert len(np.unique(seeds)) == 6
    assert np.array_equal(seeds, chosen.seeds(SEED))
    assert not np.array_equal(seeds, chosen.seeds(SEED + 1))


def test_two_crops_are_refused():
    with pytest.raises(SettingsError, match="corner, other"):
        Augmentations(["corner", "other"], KNOWN)


def test_strength_out_of_range_is_refused():
    with pytest.raises(SettingsError, match=r"'add=10'.* 0 to 9"):
        Augmentations(["add=10"], KNOWN)


@pytest.mark.parametrize("word", ["pixels=2.5", "pixels=5", "pixels=nan", "pixels=inf"])
def test_whole_strength_is_checked(word):
    known = {"pixels": Augmentation(add, 3, 4, is_whole=True)}
    with pytest.raises(SettingsError, match=f"'{word}'.* whole .* 0 to 4"):
        Augmentations([word], known)
    assert Augmentations(["pixels", "pixels=2.0"], known)


def test_without_effect_on_gray_images():
    known = {**KNOWN, "color": Augmentation(add, 3, 9, needs_color=True)}
    chosen = Augmentations(["add", "color=2", "double", "color"], known)
    assert chosen.without_effect(channels=1) == ["color=2", "color"]
    assert chosen.without_effect(channels=3) == []
