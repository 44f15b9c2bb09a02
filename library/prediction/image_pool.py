"""Convert images in processes of their own: an image that crashes a decoder costs only itself.

For callers that convert image by image in threads; converting a split uses WorkerPool itself.
"""

from threading import Lock
from typing import Self

from library.dataset.images import (
    EncodedImage,
    ImageOptions,
    UnusableImageError,
    check_decodable,
    convert_image,
    find_conformant,
)
from library.dataset.worker_pool import WorkerPool, available_cores
from library.dataset.worker_process import limit_memory

# Less work than this would be done before another process has imported its libraries.
_FILES_PER_PROCESS = 64
_BYTES_PER_PROCESS = 8 << 20
# A process limits its memory itself, once it knows how large an image may be.
_UNLIMITED = -1


class ImagePool:
    """Converts images like `convert_image`, without running other decoders in this process.

    The first process starts at once, while the caller prepares; more start as the work grows.
    JPEGs that are used as they are need no process.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        """Start the first process. `max_workers` None: one per core."""
        self._pool = WorkerPool(_convert, max_workers or available_cores(), _UNLIMITED)
        self._lock = Lock()
        self._files = self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.__exit__(*error)

    def convert(self, content: bytes, options: ImageOptions) -> EncodedImage:
        """Return (JPEG bytes, height, width) of an image. Thread-safe.

        Raises UnusableImageError, also if the decoder crashes, hangs or needs too much memory.
        """
        if conformant := find_conformant(content, options):
            # In this process, as TensorFlow decodes it next, with the same libjpeg-turbo.
            # TensorFlow would take damaged data without a warning.
            check_decodable(*conformant)
            return conformant
        with self._lock:
            self._files += 1
            self._bytes += len(content)
            work = max(self._files // _FILES_PER_PROCESS, self._bytes // _BYTES_PER_PROCESS)
            self._pool.grow(1 + work)
        is_done, result = self._pool.apply((content, options))
        if not is_done:
            raise UnusableImageError(result)
        return result


def _convert(item: tuple[bytes, ImageOptions]) -> EncodedImage:
    """Convert an image in a worker process."""
    content, options = item
    limit_memory(options.memory_bytes)
    return convert_image(content, options)
