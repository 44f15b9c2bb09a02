import numpy as np
import pytest
import tensorflow as tf

from library.augmentation.pipeline import BATCH, CROP
from library.errors import SettingsError
from library.messages import ChoiceError
from project.augmentations import AUGMENTATIONS, choose_augmentations

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
SEEDS = [tf.constant([7, number], tf.int64) for number in range(40)]
# A clone may add others, which need not be random.
SHIPPED = {
    "aug_mix",
    "auto_augment",
    "brightness",
    "contrast",
    "cutmix",
    "cutout",
    "distorted_crop",
    "flip",
    "gaussian_blur",
    "grayscale",
    "hue",
    "mixup",
    "pad_and_crop",
    "rand_augment",
    "random_erasing",
    "rotation",
    "saturation",
    "shear",
    "translation",
    "trivial_augment",
    "vertical_flip",
    "zoom",
}
OF_IMAGES = [name for name, each in AUGMENTATIONS.items() if each.acts_on not in (CROP, BATCH)]
OF_BATCHES = [name for name, each in AUGMENTATIONS.items() if each.acts_on == BATCH]


def augment(image, chosen, seed):
    return chosen.apply(image, chosen.seeds(seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_is_the_same_eagerly_and_in_a_graph(name, channels):
    chosen = choose_augmentations([name])
    image = tf.constant(IMAGE[..., :channels])
    seeds = SEEDS[:8]
    eager = [augment(image, chosen, seed).numpy() for seed in seeds]
    data = tf.data.Dataset.from_tensor_slices(tf.stack(seeds))
    inside = list(data.map(lambda seed: augment(image, chosen, seed)).as_numpy_iterator())
    assert np.array_equal(eager, inside)
    assert inside[0].dtype == np.uint8
    assert inside[0].shape == image.shape
    is_random = len({each.tobytes() for each in eager}) > 1
    if channels == 1 and AUGMENTATIONS[name].needs_color:
        assert not is_random
    elif name in SHIPPED:
        assert is_random


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_strength_0_is_the_identity(name, channels):
    chosen = choose_augmentations([f"{name}=0"])
    image = IMAGE[..., :channels]
    for seed in SEEDS[:4]:
        assert np.array_equal(augment(tf.constant(image), chosen, seed), image)


@pytest.mark.parametrize("name", OF_BATCHES)
def test_mixing_is_the_same_eagerly_and_in_a_graph(name):
    images = tf.stack([tf.constant(IMAGE + number) for number in range(5)])
    targets = tf.one_hot([0, 1, 2, 0, 1], 3)
    seeds = tf.stack(SEEDS[:5])[:, tf.newaxis]
    for word in (name, f"{name}=0"):
        chosen = choose_augmentations([word])
        data = tf.data.Dataset.from_tensors((images, targets, seeds)).map(chosen.mix)
        mixed, shares = chosen.mix(images, targets, seeds)
        ((inside, inside_shares),) = data.as_numpy_iterator()
        assert np.array_equal(mixed, inside)
        assert np.array_equal(shares, inside_shares)
        assert inside.dtype == np.uint8
        assert inside.shape == images.shape
        assert np.array_equal(images, mixed) == word.endswith("=0")
        assert np.array_equal(targets, shares) == word.endswith("=0")


SHAPES = [(300, 400), (400, 300), (360, 640), (300, 720), (800, 240), (333, 333)]


def windows(strength, shape):
    """The windows of SEEDS, int (n, 4); all of them lie in the image."""
    chosen = choose_augmentations([f"distorted_crop={strength}"])
    crops = [chosen.crop(chosen.seeds(seed)) for seed in SEEDS]
    found = np.array([crop(tf.constant((*shape, 3))) for crop in crops])
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] >= 1).all()
    assert (found[:, :2] + found[:, 2:] <= shape).all()
    return found


def share_that_is_whole(strength, shape):
    return np.mean((windows(strength, shape) == [0, 0, *shape]).all(1))


@pytest.mark.parametrize("shape", SHAPES)
def test_crop_of_strength_0_is_the_whole_image(shape):
    assert share_that_is_whole(0, shape) == 1


@pytest.mark.parametrize("shape", [*SHAPES, (100, 450), (7, 5)])
def test_crop_of_strength_1_equals_tensorflow(shape):
    chosen = choose_augmentations(["distorted_crop"])
    expected = []
    for seed in SEEDS:
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            (*shape, 3),
            tf.zeros([0, 0, 4]),
            chosen.seeds(seed)[0],
            min_object_covered=0.0,
            aspect_ratio_range=(0.5, 1.5),
            area_range=(0.5, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        expected.append([*begin[:2], *size[:2]])
    assert np.array_equal(windows(1, shape), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_crop_strength_bounds_area_and_aspect_ratio(shape):
    own, means = shape[1] / shape[0], []
    for strength in (0.1, 0.25, 0.5, 1):
        height, width = (found := windows(strength, shape)).T[2:]
        areas, aspects = height * width / np.prod(shape), width / height
        nearer = own ** (1 - strength)
        # Edges are whole pixels.
        assert areas.min() >= 0.99 * 0.5**strength
        assert aspects.min() >= 0.98 * nearer * 0.5**strength
        assert aspects.max() <= 1.02 * nearer * 1.5**strength
        assert len(np.unique(found, axis=0)) > 0.9 * len(SEEDS)
        means.append(areas.mean())
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.93
    assert means[-1] < 0.8


@pytest.mark.parametrize("shape", [(100, 310), (100, 900), (410, 100), (900, 100)])
@pytest.mark.parametrize("strength", [0.1, 0.5, 1])
def test_crop_leaves_narrow_images_whole(strength, shape):
    assert share_that_is_whole(strength, shape) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 2), (30_000, 65_500)])
def test_crop_of_extreme_shapes_lies_inside(shape):
    assert len(windows(0.5, shape)) == len(SEEDS)


@pytest.mark.parametrize("strength", [0.5, 1])
def test_crop_is_the_same_eagerly_and_in_a_graph(strength):
    chosen = choose_augmentations([f"distorted_crop={strength}"])
    pairs = [(seed, (*shape, 3)) for seed, shape in zip(SEEDS, SHAPES, strict=False)]
    data = tf.data.Dataset.from_tensor_slices(tuple(map(tf.stack, zip(*pairs, strict=True))))
    inside = data.map(lambda seed, shape: chosen.crop(chosen.seeds(seed))(shape))
    eager = [chosen.crop(chosen.seeds(seed))(tf.constant(shape)) for seed, shape in pairs]
    assert np.array_equal(list(inside.as_numpy_iterator()), eager)
    assert inside.element_spec == tf.TensorSpec([4], tf.int32)


def test_flip_mirrors_half_of_the_images():
    functions = choose_augmentations(["flip"])
    flipped = [
        np.array_equal(augment(tf.constant(IMAGE), functions, seed), IMAGE[:, ::-1])
        for seed in SEEDS
    ]
    assert 10 < sum(flipped) < 30


def test_pad_and_crop_mirrors_the_border():
    functions = choose_augmentations(["pad_and_crop=2"])
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), "symmetric")
    possible = {padded[y : y + 12, x : x + 10].tobytes() for y in range(5) for x in range(5)}
    seen = {augment(tf.constant(IMAGE), functions, seed).numpy().tobytes() for seed in SEEDS}
    assert seen <= possible
    assert len(seen) > 10


def test_pad_and_crop_is_limited_to_the_image():
    """The mirror is as large as the image: nothing lies behind it."""
    small = IMAGE[:8, :8]
    padded = np.pad(small, ((8, 8), (8, 8), (0, 0)), "symmetric")
    possible = {padded[y : y + 8, x : x + 8].tobytes() for y in range(17) for x in range(17)}
    functions = choose_augmentations(["pad_and_crop=30"])
    seen = {augment(tf.constant(small), functions, seed).numpy().tobytes() for seed in SEEDS}
    assert seen <= possible
    assert len(seen) > 20


def test_brightness_adds_one_number_in_range():
    functions = choose_augmentations(["brightness=0.2"])
    gray = tf.fill([4, 4, 1], tf.constant(128, tf.uint8))
    for seed in SEEDS:
        pixels = augment(gray, functions, seed).numpy().astype(int)
        assert pixels.min() == pixels.max()
        assert abs(pixels[0, 0, 0] - 128) <= 51


def test_repeated_augmentations_are_independent():
    functions = choose_augmentations(["flip", "flip"])
    unchanged = [
        np.array_equal(augment(tf.constant(IMAGE), functions, seed), IMAGE) for seed in SEEDS
    ]
    # Were they tied, both would flip, or neither: always unchanged.
    assert 0 < sum(unchanged) < len(SEEDS)


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        (["flipp"], ChoiceError, r"'flipp'.* 'flip'"),
        (["flip=2"], SettingsError, r"'flip=2'.* 0 to 1"),
        (["flip=-1"], SettingsError, r"'flip=-1'.* 0 to 1"),
        (["flip=x"], SettingsError, r"'flip=x'.* 0 to 1"),
        (["flip=nan"], SettingsError, r"'flip=nan'.* 0 to 1"),
        (["pad_and_crop=2.7"], SettingsError, r"'pad_and_crop=2.7'.* whole .* 0 to "),
        (["distorted_crop"] * 2, SettingsError, "distorted_crop"),
    ],
)
def test_choose_augmentations_refuses_bad_words(words, error, match):
    with pytest.raises(error, match=match):
        choose_augmentations(words)


def test_vertical_flip_mirrors_half_of_the_images():
    chosen = choose_augmentations(["vertical_flip"])
    results = [augment(tf.constant(IMAGE), chosen, seed).numpy() for seed in SEEDS]
    assert all(any(np.array_equal(each, it) for it in (IMAGE, IMAGE[::-1])) for each in results)
    assert 10 < sum(np.array_equal(each, IMAGE[::-1]) for each in results) < 30


def test_gaussian_blur_keeps_the_mean():
    chosen = choose_augmentations(["gaussian_blur=3"])
    for seed in SEEDS[:10]:
        blurred = augment(tf.constant(IMAGE), chosen, seed).numpy().astype(float)
        assert abs(blurred.mean() - IMAGE.mean()) < 5
        assert blurred.std() <= IMAGE.std()
    flat = tf.fill([6, 6, 1], tf.constant(77, tf.uint8))
    assert np.array_equal(augment(flat, chosen, SEEDS[0]), flat)


def test_random_erasing_probability_is_its_strength():
    chosen = choose_augmentations(["random_erasing=0.5"])
    image = tf.zeros([40, 30, 1], tf.uint8)
    shares = [np.mean(augment(image, chosen, seed).numpy() > 0) for seed in SEEDS]
    assert 10 < np.count_nonzero(shares) < 30
    assert max(shares) < 0.4


def test_cutout_fills_a_square():
    chosen = choose_augmentations(["cutout=0.5"])
    image = tf.zeros([40, 30, 1], tf.uint8)
    corners = set()
    for seed in SEEDS:
        rows, columns = np.nonzero(augment(image, chosen, seed).numpy()[..., 0] == 128)
        assert len(rows) == 15 * 15
        assert (np.ptp(rows), np.ptp(columns)) == (14, 14)
        corners.add((rows[0], columns[0]))
    assert len(corners) > 20
