"""A base's features of images, computed once for images whose pixels are the same.

Many are: a view that flips half of the images has the others as another view, or as the validation
split of another fold, has them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from library.models.inference import SMALL_BATCH, Inference

# Images to run at once, so that all cores have some.
_AT_ONCE = 8 * SMALL_BATCH
# Features of at most this size are remembered.
_MEMORY_BYTES = 2**27


class ImageFeatures:
    """Computes features of images, and remembers them by the hash of the pixels."""

    def __init__(self, infer: Inference) -> None:
        """Remember nothing yet; `infer` returns the features of pixels."""
        self._infer = infer
        self._known: dict[bytes, np.ndarray] = {}
        self._bytes = 0

    def compute(self, batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield (features, label) of each image in batches of (pixels, labels), in order."""
        waiting: list[tuple[bytes, Any]] = []
        new: dict[bytes, np.ndarray] = {}
        for pixels, labels in batches:
            for image, label in zip(np.asarray(pixels), np.asarray(labels), strict=True):
                key = hashlib.sha256(image).digest()
                waiting.append((key, label))
                if key not in self._known:
                    new[key] = image
            if len(new) >= _AT_ONCE:
                yield from self._run(waiting, new)
                waiting, new = [], {}
        yield from self._run(waiting, new)

    def _run(
        self, waiting: list[tuple[bytes, Any]], new: dict[bytes, np.ndarray]
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """Yield (features, label) of images, of which `new` are those to run."""
        found: dict[bytes, np.ndarray] = {}
        if new:
            # Filled up: in smaller batches, the last bits of some layers' outputs differ.
            images = [*new.values()]
            images += images[:1] * (-len(images) % SMALL_BATCH)
            found = dict(zip(new, self._infer(np.stack(images)), strict=False))
        for key, label in waiting:
            yield found[key] if key in found else self._known[key], label
        size = sum(each.nbytes for each in found.values())
        if self._bytes + size <= _MEMORY_BYTES:
            self._known |= found
            self._bytes += size
