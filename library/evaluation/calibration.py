"""Whether probabilities mean what they say: of all guesses at 80 %, 80 % should be right.

Expected calibration error (ECE) as in Guo et al. 2017 (arXiv 1706.04599): images in 15 bins of
equal width by confidence; the mean distance between confidence and accuracy, bins weighted by their
images. And the temperature of that paper, which brings the two together.
"""

import numpy as np

from library.evaluation.confusion import one_hot

BINS = 15
_COLDEST, _HOTTEST = 0.05, 20.0


class Bins:
    """Each image's guesses in bins by confidence.

    An image with one class gives one guess, its likeliest class. Where several classes may be right
    at once, each class of each image is a guess, and right if the image has that class.
    """

    def __init__(self, probabilities, labels):
        """Take (n, classes), and labels int64 (n,) or multi-hot (n, classes)."""
        if labels.ndim == 1:
            best = probabilities.argmax(1)
            confidence, right = probabilities.max(1)[:, np.newaxis], (best == labels)[:, np.newaxis]
        else:
            confidence, right = probabilities, labels > 0.5
        confidence = confidence.astype(np.float64)
        # The first one holds its lower edge too.
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        rows = np.arange(len(bins))[:, np.newaxis]
        # Each (n, BINS): how many guesses, how sure together, how many right.
        self._guesses, self._confidence, self._right = np.zeros((3, len(bins), BINS))
        for sums, values in (
            (self._guesses, 1.0),
            (self._confidence, confidence),
            (self._right, right),
        ):
            np.add.at(sums, (rows, bins), values)

    def error(self, weights):
        """Return the ECE for weights (n, samples): float64 (samples,)."""
        columns = weights.T.astype(np.float64)
        distances = np.abs(columns @ (self._confidence - self._right))
        return distances.sum(1) / np.maximum((columns @ self._guesses).sum(1), 1)

    def rows(self):
        """Return dict for each bin that is not empty: its edges, guesses, confidence, accuracy."""
        sums = zip(*(each.sum(0).tolist() for each in self._all()), strict=True)
        return [
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "guesses": round(guesses),
                "confidence": confidence / guesses,
                "accuracy": right / guesses,
            }
            for number, (guesses, confidence, right) in enumerate(sums)
            if guesses
        ]

    def _all(self):
        return self._guesses, self._confidence, self._right


def fit_temperature(scores, labels):
    """Return what to divide logits by so that the labels become likeliest; None if nothing does.

    Takes scores (n, classes) and labels int64 (n,) or multi-hot. The negative log-likelihood is
    convex in 1 / temperature: Newton's steps, kept between bounds. Where all is right already, ever
    colder would be ever better, and the images can't tell.
    """
    if not len(scores):
        return None
    scores = scores.astype(np.float64)
    multi_label = labels.ndim == 2
    truth = labels if multi_label else one_hot(labels, scores.shape[1])
    wanted = (scores * truth).sum() / len(scores)
    low, high, inverse = 1 / _HOTTEST, 1 / _COLDEST, 1.0
    for _ in range(60):
        expected, variance = (_sigmoid if multi_label else _softmax)(scores, inverse)
        slope = expected - wanted
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / variance if variance > 0 else np.inf
        step = step if low < step < high else np.sqrt(low * high)
        if abs(step - inverse) < 1e-7 * inverse:
            break
        inverse = step
    return None if inverse > 0.999 / _COLDEST else float(1 / inverse)


def _softmax(scores, inverse):
    """Return the mean over images of the mean and of the variance of the scores."""
    shares = np.exp((scores - scores.max(1, keepdims=True)) * inverse)
    shares /= shares.sum(1, keepdims=True)
    means = (shares * scores).sum(1)
    variances = (shares * (scores - means[:, np.newaxis]) ** 2).sum(1)
    return means.mean(), variances.mean()


def _sigmoid(scores, inverse):
    shares = 1 / (1 + np.exp(-np.clip(scores * inverse, -500, 500)))
    return (shares * scores).sum(1).mean(), (shares * (1 - shares) * scores**2).sum(1).mean()
