import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from library.augmentation.pipeline import BATCH, CROP
from library.describing.augmentation_gallery import gallery_text, write_gallery
from library.errors import SettingsError
from library.messages import ChoiceError
from project.augmentations import AUGMENTATIONS, INTRODUCTION, choose_augmentations
from tests.conftest import ROOT

PICTURE = ROOT / "docs" / "augmentations.webp"
IMAGE = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
SEEDS = [tf.constant([7, number], tf.int64) for number in range(40)]
OF_IMAGES = [name for name, each in AUGMENTATIONS.items() if each.acts_on not in (CROP, BATCH)]
OF_BATCHES = [name for name, each in AUGMENTATIONS.items() if each.acts_on == BATCH]


def augment(image, chosen, seed):
    return chosen.apply(image, chosen.seeds(seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_eagerly_and_inside_a_pipeline_the_same(name, channels):
    chosen = choose_augmentations([name])
    image = tf.constant(IMAGE[..., :channels])
    seeds = SEEDS[:8]
    eager = [augment(image, chosen, seed).numpy() for seed in seeds]
    data = tf.data.Dataset.from_tensor_slices(tf.stack(seeds))
    inside = list(data.map(lambda seed: augment(image, chosen, seed)).as_numpy_iterator())
    assert np.array_equal(eager, inside)
    assert inside[0].dtype == np.uint8
    assert inside[0].shape == image.shape
    gray_stays_gray = channels == 1 and name in ("saturation", "hue", "grayscale")
    is_random = len({each.tobytes() for each in eager}) > 1
    assert is_random != gray_stays_gray


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_strength_0_is_the_identity(name, channels):
    chosen = choose_augmentations([f"{name}=0"])
    image = IMAGE[..., :channels]
    for seed in SEEDS[:4]:
        assert np.array_equal(augment(tf.constant(image), chosen, seed), image)


@pytest.mark.parametrize("name", OF_BATCHES)
def test_batches_are_mixed_eagerly_as_inside_a_pipeline(name):
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
def test_a_crop_of_strength_0_is_the_whole_image(shape):
    assert share_that_is_whole(0, shape) == 1


@pytest.mark.parametrize("shape", [*SHAPES, (100, 450), (7, 5)])
def test_a_crop_of_strength_1_is_tensorflows_own(shape):
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
def test_crops_differ_from_the_image_by_as_much_as_their_strength_says(shape):
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
def test_images_too_narrow_for_any_such_window_stay_whole(strength, shape):
    assert share_that_is_whole(strength, shape) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 2), (30_000, 65_500)])
def test_the_smallest_and_largest_images_are_cropped_inside(shape):
    assert len(windows(0.5, shape)) == len(SEEDS)


@pytest.mark.parametrize("strength", [0.5, 1])
def test_windows_are_chosen_eagerly_as_inside_a_pipeline(strength):
    chosen = choose_augmentations([f"distorted_crop={strength}"])
    pairs = [(seed, (*shape, 3)) for seed, shape in zip(SEEDS, SHAPES, strict=False)]
    data = tf.data.Dataset.from_tensor_slices(tuple(map(tf.stack, zip(*pairs, strict=True))))
    inside = data.map(lambda seed, shape: chosen.crop(chosen.seeds(seed))(shape))
    eager = [chosen.crop(chosen.seeds(seed))(tf.constant(shape)) for seed, shape in pairs]
    assert np.array_equal(list(inside.as_numpy_iterator()), eager)
    assert inside.element_spec == tf.TensorSpec([4], tf.int32)


def test_a_flip_mirrors_about_half_of_the_images():
    functions = choose_augmentations(["flip"])
    flipped = [
        np.array_equal(augment(tf.constant(IMAGE), functions, seed), IMAGE[:, ::-1])
        for seed in SEEDS
    ]
    assert 10 < sum(flipped) < 30


def test_a_shift_is_a_window_of_the_mirrored_border():
    functions = choose_augmentations(["pad_and_crop=2"])
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), "symmetric")
    possible = {padded[y : y + 12, x : x + 10].tobytes() for y in range(5) for x in range(5)}
    seen = {augment(tf.constant(IMAGE), functions, seed).numpy().tobytes() for seed in SEEDS}
    assert seen <= possible
    assert len(seen) > 10


def test_no_shift_is_larger_than_the_image():
    """The mirror is as large as the image: nothing lies behind it."""
    small = IMAGE[:8, :8]
    padded = np.pad(small, ((8, 8), (8, 8), (0, 0)), "symmetric")
    possible = {padded[y : y + 8, x : x + 8].tobytes() for y in range(17) for x in range(17)}
    functions = choose_augmentations(["pad_and_crop=30"])
    seen = {augment(tf.constant(small), functions, seed).numpy().tobytes() for seed in SEEDS}
    assert seen <= possible
    assert len(seen) > 20


def test_brightness_adds_one_number_within_its_range():
    functions = choose_augmentations(["brightness=0.2"])
    gray = tf.fill([4, 4, 1], tf.constant(128, tf.uint8))
    for seed in SEEDS:
        pixels = augment(gray, functions, seed).numpy().astype(int)
        assert pixels.min() == pixels.max()
        assert abs(pixels[0, 0, 0] - 128) <= 51


def test_two_augmentations_are_independent():
    functions = choose_augmentations(["flip", "flip"])
    unchanged = [
        np.array_equal(augment(tf.constant(IMAGE), functions, seed), IMAGE) for seed in SEEDS
    ]
    # Were they tied, both would flip, or neither: always unchanged.
    assert 0 < sum(unchanged) < len(SEEDS)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["flipp"], "unknown augmentation 'flipp'; did you mean 'flip'?"),
        (["flip=2"], "augmentations: 'flip=2' wants a strength from 0 to 1"),
        (["flip=-1"], "augmentations: 'flip=-1' wants a strength from 0 to 1"),
        (["flip=x"], "augmentations: 'flip=x' wants a strength from 0 to 1"),
        (["flip=nan"], "augmentations: 'flip=nan' wants a strength from 0 to 1"),
        (["pad_and_crop=2.7"], "augmentations: 'pad_and_crop=2.7' wants a whole strength from 0"),
        (["distorted_crop"] * 2, "augmentations: at most one of distorted_crop"),
    ],
)
def test_bad_words_are_refused(words, text):
    with pytest.raises((SettingsError, ChoiceError)) as caught:
        choose_augmentations(words)
    assert str(caught.value).startswith(text)


def test_a_vertical_flip_turns_upside_down():
    chosen = choose_augmentations(["vertical_flip"])
    results = [augment(tf.constant(IMAGE), chosen, seed).numpy() for seed in SEEDS]
    assert all(any(np.array_equal(each, it) for it in (IMAGE, IMAGE[::-1])) for each in results)
    assert 10 < sum(np.array_equal(each, IMAGE[::-1]) for each in results) < 30


def test_a_blur_keeps_the_mean_and_takes_contrast():
    chosen = choose_augmentations(["gaussian_blur=3"])
    for seed in SEEDS[:10]:
        blurred = augment(tf.constant(IMAGE), chosen, seed).numpy().astype(float)
        assert abs(blurred.mean() - IMAGE.mean()) < 5
        assert blurred.std() <= IMAGE.std()
    flat = tf.fill([6, 6, 1], tf.constant(77, tf.uint8))
    assert np.array_equal(augment(flat, chosen, SEEDS[0]), flat)


def test_erasing_replaces_one_window_as_often_as_its_strength_says():
    chosen = choose_augmentations(["random_erasing=0.5"])
    image = tf.zeros([40, 30, 1], tf.uint8)
    shares = [np.mean(augment(image, chosen, seed).numpy() > 0) for seed in SEEDS]
    assert 10 < np.count_nonzero(shares) < 30
    assert max(shares) < 0.4


def test_the_pages_table_is_that_of_the_registry():
    page = (ROOT / "docs" / "augmentations.md").read_text()
    assert page == gallery_text(AUGMENTATIONS, INTRODUCTION)
    assert all(f"| `{name}` |" in page for name in AUGMENTATIONS)


def test_the_page_and_its_picture_are_written_by_the_project(tmp_path):
    few = {name: AUGMENTATIONS[name] for name in list(AUGMENTATIONS)[:2]}
    write_gallery(few, INTRODUCTION, tmp_path)
    assert (tmp_path / "augmentations.md").read_text() == gallery_text(few, INTRODUCTION)
    check_kept_picture(few, tmp_path / PICTURE.name)


@pytest.mark.slow
def test_the_pages_picture_shows_what_each_augmentation_does(tmp_path):
    write_gallery(AUGMENTATIONS, INTRODUCTION, tmp_path)
    check_kept_picture(AUGMENTATIONS, tmp_path / PICTURE.name)


def check_kept_picture(names, written):
    """Compare the first rows of the picture that is kept with those written just now."""
    kept, written = (
        np.asarray(Image.open(each).convert("RGB"), int) for each in (PICTURE, written)
    )
    # 4 pixels are the sheet's border.
    height = (len(kept) - 4) // len(AUGMENTATIONS)
    assert len(written) == height * len(names) + 4
    for number, name in enumerate(names):
        rows = slice(number * height, (number + 1) * height)
        apart = np.abs(kept[rows] - written[rows])
        # Another encoder of WEBP makes 4 of it; images of another seed, 6 to 90 in some column.
        assert max(each.mean() for each in np.array_split(apart, 8, axis=1)) < 5, name
