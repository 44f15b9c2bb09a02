"""How many labels `select` saves compared with random choice, on the bundled sample.

    python -m benchmarks.selection [--network frozen] [--seeds 3] [--methods random,ours]

The 4,000 training images are the unlabeled pool. Of each seed, all methods begin with the same 100
random labels; in each round a network learns from the labels so far, and the method chooses 100
more. Accuracy is that on Fashion-MNIST's own 10,000 test images if the source of the sample is
installed (dataset/README.md), otherwise on the sample's 1,000. The networks are `simple` from
scratch, or (`--network frozen`) a logistic regression on the 160 principal components of features
of EfficientNet-Lite0.

Methods: random; ours; margin and entropy (the most uncertain images alone); kcenter (Sener and
Savarese 2018); badge (Ash et al. 2020); typiclust (Hacohen et al. 2022).

Printed are the mean accuracies of each round, and for each method the labels that it needs for the
accuracies that random choice reaches, as shares of those of random choice. The last line is a JSON
object with the median share.
"""

import argparse
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from dataset.make_sample import CLASSES, SAMPLE, SOURCE
from library.prediction.embedding import with_embedding
from library.prediction.neighbor_index import normalize
from library.prediction.preprocess import Prediction
from library.selection.candidates import collect_candidates, measure_uncertainty
from library.selection.choose import CANDIDATES_PER_IMAGE, choose_diverse
from project.networks.efficientnet_lite0 import efficientnet_lite0
from project.networks.simple import simple

ROUND, STEPS, BATCH, RATE = 100, 300, 64, 2e-3
Arrays = tuple[np.ndarray, np.ndarray]
# (probabilities of the pool, embeddings of the pool, embeddings with labels, random) → rows
Choose = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def main() -> None:
    """Measure each method and print the curves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", choices=("simple", "frozen"), default="simple")
    parser.add_argument("--methods", default="random,ours")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10, help="random choice gets twice as many")
    options = parser.parse_args()
    pool, test = read_images("train"), read_test()
    learn = learn_simple() if options.network == "simple" else learn_frozen(pool[0], test[0])
    curves = {}
    for method in options.methods.split(","):
        rounds = options.rounds * (2 if method == "random" else 1)
        runs = [run(method, rounds, seed, pool, test, learn) for seed in range(options.seeds)]
        curves[method] = np.mean(runs, axis=0)
        line = " ".join(f"{100 * each:5.2f}" for each in curves[method])
        spread = 100 * np.std(runs, axis=0, ddof=min(1, len(runs) - 1)).mean()
        print(f"{method:10} {line}  (between seeds: {spread:.2f})", flush=True)
    shares = {name: find_shares(curves["random"], curves[name]) for name in curves}
    for name, found in shares.items():
        line = " ".join(f"{labels}:{share:.2f}" for labels, share in found.items())
        print(f"{name:10} share of the labels that random choice needs, {line}")
    medians = {name: float(np.median([*each.values()])) for name, each in shares.items() if each}
    print(json.dumps({name: round(each, 3) for name, each in medians.items()}))


def run(
    method: str, rounds: int, seed: int, pool: Arrays, test: Arrays, learn: Callable
) -> list[float]:
    """Return the accuracy of each round."""
    random = np.random.default_rng(seed)
    labeled = random.choice(len(pool[0]), ROUND, replace=False)
    accuracies = []
    for number in range(rounds):
        # Random choice needs no network, so that every second round is enough.
        if method == "random" and number % 2 == 0 and number:
            accuracies.append(np.nan)
        else:
            predict = learn(pool[0][labeled], pool[1][labeled], seed)
            accuracies.append(float((predict(test[0])[0].argmax(1) == test[1]).mean()))
        others = np.setdiff1d(np.arange(len(pool[0])), labeled)
        if method == "random":
            chosen = random.choice(len(others), ROUND, replace=False)
        else:
            probabilities, embeddings = predict(pool[0][others])
            known = predict(pool[0][labeled])[1]
            chosen = METHODS[method](probabilities, embeddings, known, random)
        labeled = np.concatenate([labeled, others[chosen]])
    missing = np.isnan(accuracies)
    places = np.arange(rounds)
    return np.interp(places, places[~missing], np.array(accuracies)[~missing]).tolist()


def find_shares(random: np.ndarray, found: np.ndarray) -> dict[int, float]:
    """Return for labels of a method (from the third round on) their share of what random needs.

    Where random choice never gets as good, the share is at most the one that is returned.
    """
    rising = np.maximum.accumulate(random)
    labels = ROUND * np.arange(1, len(random) + 1)
    shares = {}
    for number, accuracy in enumerate(found, 1):
        if number > 2:
            shares[ROUND * number] = ROUND * number / float(np.interp(accuracy, rising, labels))
    return shares


def choose_ours(
    probabilities: np.ndarray, embeddings: np.ndarray, _: np.ndarray, __: np.random.Generator
) -> np.ndarray:
    """Choose as `select` does."""
    columns = zip(probabilities, embeddings, strict=True)
    predictions = [Prediction(str(row), p, None, e) for row, (p, e) in enumerate(columns)]
    found = collect_candidates(predictions, CANDIDATES_PER_IMAGE * ROUND)
    rows = choose_diverse(found.probabilities, found.embeddings, ROUND)
    return np.array([int(found.names[row]) for row in rows])


def choose_kcenter(
    _: np.ndarray, embeddings: np.ndarray, known: np.ndarray, __: np.random.Generator
) -> np.ndarray:
    """Choose the image farthest from all others with a label, again and again."""
    embeddings = normalize(embeddings)
    nearest, chosen = (embeddings @ normalize(known).T).max(1), []
    for _ in range(ROUND):
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, embeddings @ embeddings[chosen[-1]])
    return np.array(chosen)


def choose_badge(
    probabilities: np.ndarray, embeddings: np.ndarray, _: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Choose by k-means++ on the gradients of the last layer, which are outer products."""
    errors = probabilities.copy()
    errors[np.arange(len(errors)), errors.argmax(1)] -= 1
    squares = (errors**2).sum(1) * (embeddings**2).sum(1)
    chosen = [int(squares.argmax())]
    nearest = np.full(len(errors), np.inf)
    while len(chosen) < ROUND:
        last = chosen[-1]
        products = (errors @ errors[last]) * (embeddings @ embeddings[last])
        nearest = np.minimum(nearest, np.maximum(squares + squares[last] - 2 * products, 0))
        nearest[chosen] = 0
        chosen.append(int(random.choice(len(nearest), p=nearest / nearest.sum())))
    return np.array(chosen)


def choose_typiclust(
    _: np.ndarray, embeddings: np.ndarray, known: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Choose the most typical image of each of the largest clusters without a label."""
    both = normalize(np.concatenate([known, embeddings]))
    count = len(known) + ROUND
    seed = int(random.integers(1 << 30))
    clusters = KMeans(count, n_init=1, max_iter=30, random_state=seed).fit_predict(both)
    covered, sizes = set(clusters[: len(known)]), np.bincount(clusters, minlength=count)
    chosen = []
    for cluster in sorted(set(range(count)) - covered, key=lambda each: -sizes[each])[:ROUND]:
        members = np.flatnonzero(clusters[len(known) :] == cluster)
        similarities = both[len(known) + members] @ both[len(known) + members].T
        typicality = np.sort(similarities, axis=1)[:, -21:].mean(axis=1)
        chosen.append(int(members[typicality.argmax()]))
    rest = np.setdiff1d(np.arange(len(embeddings)), chosen)
    return np.concatenate([chosen, random.choice(rest, ROUND - len(chosen), False)]).astype(int)


METHODS: dict[str, Choose] = {
    "ours": choose_ours,
    "margin": lambda p, *_: np.argsort(-measure_uncertainty(p), kind="stable")[:ROUND],
    "entropy": lambda p, *_: np.argsort((p * np.log(p + 1e-12)).sum(1), kind="stable")[:ROUND],
    "kcenter": choose_kcenter,
    "badge": choose_badge,
    "typiclust": choose_typiclust,
}


def learn_simple() -> Callable:
    """Return a function that trains `simple` from scratch: (images, labels, seed) → predict."""
    network = simple(
        (28, 28, 1),
        len(CLASSES),
        width=32,
        dropout_rate=0.5,
        standardize_images=False,
        head="softmax",
    )
    extended = with_embedding(network)
    # With the states of the random numbers for dropout.
    start = [each.numpy() for each in network.variables]
    schedule = keras.optimizers.schedules.CosineDecay(RATE, STEPS)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(network.trainable_variables)
    fresh = [each.numpy() for each in optimizer.variables]
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(autograph=False)
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, network(images, training=True))
        optimizer.apply(tape.gradient(loss, network.trainable_variables))

    run_network = tf.function(lambda x: extended(x, training=False), reduce_retracing=True)

    def learn(images: np.ndarray, labels: np.ndarray, seed: int) -> Callable:
        variables = [*network.variables, *optimizer.variables]
        for variable, value in zip(variables, [*start, *fresh], strict=True):
            variable.assign(value)
        random = np.random.default_rng(seed)
        order = np.concatenate(
            [random.permutation(len(images)) for _ in range(-(-STEPS * BATCH // len(images)))]
        )
        for number in range(STEPS):
            rows = order[number * BATCH : (number + 1) * BATCH]
            step(tf.constant(images[rows], tf.float32), tf.constant(labels[rows]))

        def predict(some: np.ndarray) -> Arrays:
            parts = [some[at : at + 500].astype(np.float32) for at in range(0, len(some), 500)]
            outputs = [run_network(part) for part in parts]
            scores, embeddings = (np.concatenate(each) for each in zip(*outputs, strict=True))
            return keras.ops.softmax(scores).numpy(), embeddings

        return predict

    return learn


def learn_frozen(*images: np.ndarray) -> Callable:
    """Return the same with a logistic regression on features, which are computed at once."""
    network = efficientnet_lite0(
        (96, 96, 1),
        len(CLASSES),
        fine_tuning=False,
        middle_features=False,
        dropout_rate=0.0,
        head="softmax",
    )
    embed = with_embedding(network)
    features: dict[bytes, np.ndarray] = {}
    for some in images:
        for start in range(0, len(some), 100):
            part = some[start : start + 100]
            found = embed(tf.image.resize(tf.cast(part, tf.float32), (96, 96)), training=False)[1]
            features |= {each.tobytes(): row for each, row in zip(part, found.numpy(), strict=True)}
    pool = np.stack([features[each.tobytes()] for each in images[0]])
    mean, deviation = pool.mean(0), pool.std(0) + 1e-3
    components = PCA(160, random_state=0).fit((pool - mean) / deviation)
    scale = components.explained_variance_[0] ** 0.5

    def find(some: np.ndarray) -> np.ndarray:
        return np.stack([features[each.tobytes()] for each in some])

    def reduce(found: np.ndarray) -> np.ndarray:
        return components.transform((found - mean) / deviation) / scale

    def learn(some: np.ndarray, labels: np.ndarray, _: int) -> Callable:
        model = LogisticRegression(C=3, max_iter=150, tol=1e-3)
        model.fit(reduce(find(some)), labels)

        def predict(others: np.ndarray) -> Arrays:
            found = find(others)
            # A class without labels has no column.
            probabilities = np.zeros((len(found), len(CLASSES)), np.float32)
            probabilities[:, model.classes_] = model.predict_proba(reduce(found))
            return probabilities, found

        return predict

    return learn


def read_images(split: str) -> Arrays:
    """Return uint8 images (n, 28, 28, 1) and labels of a split of the sample."""
    with zipfile.ZipFile(SAMPLE) as archive:
        names = sorted(each for each in archive.namelist() if f"{split}/" in each)
        names = [each for each in names if each.endswith(".png")]
        images = [np.asarray(Image.open(io.BytesIO(archive.read(each)))) for each in names]
    labels = [sorted(CLASSES).index(Path(each).parent.name) for each in names]
    return np.stack(images)[..., np.newaxis], np.array(labels)


def read_test() -> Arrays:
    """Return Fashion-MNIST's own test images if they are installed, or those of the sample."""
    files = [SOURCE / f"t10k-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1")]
    if not all(each.is_file() for each in files):
        return read_images("test")
    with gzip.open(files[0]) as images, gzip.open(files[1]) as labels:
        pixels = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        numbers = np.frombuffer(labels.read(), np.uint8, offset=8)
    order = np.array([sorted(CLASSES).index(name) for name in CLASSES])
    return pixels, order[numbers]


if __name__ == "__main__":
    main()
