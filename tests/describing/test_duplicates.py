import numpy as np
import pytest
from PIL import Image

from library.describing.duplicates import exact_hash, find_groups, perceptual_hash, signature


def blobs(seed, size=64):
    small = np.random.default_rng(seed).integers(0, 255, (6, 6)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def groups(*images):
    exact = np.array([exact_hash(each.tobytes()) for each in images], np.uint64)
    perceptual = np.array([perceptual_hash(each) for each in images], np.uint64)
    signatures = np.array([np.frombuffer(signature(each), np.int8) for each in images])
    equal, alike = find_groups(exact, perceptual, signatures)
    return [sorted(each.tolist()) for each in equal], [sorted(each.tolist()) for each in alike]


def test_equal_files_are_one_group():
    assert groups(blobs(0), blobs(1), blobs(0), blobs(2), blobs(0)) == ([[0, 2, 4]], [])


@pytest.mark.parametrize("size", [48, 60, 200])
def test_a_resized_copy_looks_alike(size):
    for seed in range(20):
        assert groups(blobs(seed), blobs(99), blobs(seed, size)) == ([], [[0, 2]])


def test_a_brighter_copy_looks_alike():
    image = blobs(3) // 2 + 20
    assert groups(image, image + 10, blobs(4)) == ([], [[0, 1]])


def test_different_images_do_not_look_alike():
    assert groups(*(blobs(seed) for seed in range(300))) == ([], [])


def test_a_look_alike_joins_all_equal_files():
    assert groups(blobs(0), blobs(0), blobs(0, 60)) == ([[0, 1]], [[0, 1, 2]])


def test_many_blank_images_and_none():
    plain = [np.full((9, 9), level, np.uint8) for level in range(100)]
    equal, alike = groups(*plain)
    assert (equal, alike) == ([], [list(range(100))])
    nothing = find_groups(
        np.zeros(0, np.uint64), np.zeros((0, 2), np.uint64), np.zeros((0, 64), np.int8)
    )
    assert nothing == ([], [])
