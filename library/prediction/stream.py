"""Files → predictions, in order: decoded by threads while the network looks at those before."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from library.cores import available_cores
from library.dataset.images import UnusableImageError
from library.dataset.reading import read_content

# Batches whose images are prepared, or being prepared, ahead of the network.
_BATCHES_AHEAD = 2
# Such a row would have some class as its likeliest one, and pass any threshold.
NO_NUMBERS = "gives scores that are no numbers"


@dataclass(frozen=True)
class Prediction:
    """What is said of one file: float32 probabilities (classes,), or the reason why none are.

    The embedding, float32 (size,), is empty unless the Predictor gives one.
    """

    name: str
    probabilities: np.ndarray | None
    reason: str | None = None
    embedding: np.ndarray | None = None


def predict_files(files, pictures, predictor, batch_size, threads=None):
    """Yield a Prediction for each of the LabelledFiles, in their order.

    Memory holds a few batches of pixels, however many files there are.
    """
    files = iter(files)
    with ThreadPoolExecutor(threads or available_cores()) as pool:

        def start(count):
            return [
                (each.name, pool.submit(_prepare, pictures, each)) for each in islice(files, count)
            ]

        waiting = deque(start(_BATCHES_AHEAD * batch_size))
        try:
            while batch := [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]:
                prepared = [(name, *future.result()) for name, future in batch]
                # While the network is busy, the threads have the batch after the next one to do.
                waiting += start(batch_size)
                yield from _predict(prepared, predictor)
        finally:
            for _, future in waiting:
                future.cancel()


def _predict(prepared, predictor):
    images = [pixels for _, pixels, _ in prepared if pixels is not None]
    rows = zip(*predictor.predict(np.stack(images)), strict=True) if images else iter(())
    for name, pixels, reason in prepared:
        row = (None, None) if pixels is None else next(rows)
        if pixels is not None and not all(np.isfinite(each).all() for each in row):
            row, reason = (None, None), NO_NUMBERS
        probabilities, embedding = row
        yield Prediction(name, probabilities, reason, embedding)


def _prepare(pictures, file):
    """Give (pixels, None) or (None, the reason why not) for a LabelledFile."""
    try:
        return pictures.pixels(read_content(file.place)), None
    except UnusableImageError as error:
        return None, str(error)
    except MemoryError:
        return None, "needs too much memory to decode"
    except (OSError, ValueError) as error:
        return None, f"can't be read: {getattr(error, 'strerror', None) or error}"
