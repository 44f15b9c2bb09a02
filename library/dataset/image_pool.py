"""Images converted in processes of their own: a decoder that crashes costs one image, not the run.

For those who convert as they go, in threads: a conversion of a whole split asks `Workers` itself.
"""

from threading import Lock

from library.dataset.images import UnusableImageError, convert_image, find_conformant
from library.dataset.worker import limit_memory
from library.dataset.worker_pool import WorkerPool, available_cores

# Less work than this would be done before another process has imported its libraries.
_FILES_PER_PROCESS = 64
_BYTES_PER_PROCESS = 8 << 20
# A process limits its memory itself, once it is told how large an image may be.
_UNLIMITED = -1


class ImagePool:
    """Return what convert_image gives, but runs no decoder in this process. A context manager.

    What conversion would keep as it is needs none, and goes straight through. The first process
    starts at once, while the caller still has other things to do; others as the work grows, up to
    `most` (None: one a core).
    """

    def __init__(self, most=None):
        self._workers = WorkerPool(_convert, most or available_cores(), _UNLIMITED)
        self._lock = Lock()
        self._files = self._bytes = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._workers.__exit__(*error)

    def convert(self, content, options):
        """Give (JPEG bytes, height, width) by ImageOptions. For several threads at once.

        Raises UnusableImageError, also where the decoder crashes, hangs or needs too much memory.
        """
        kept = find_conformant(content, options)
        if kept:
            return kept
        with self._lock:
            self._files += 1
            self._bytes += len(content)
            work = max(self._files // _FILES_PER_PROCESS, self._bytes // _BYTES_PER_PROCESS)
            self._workers.grow(1 + work)
        is_done, result = self._workers.apply((content, options))
        if not is_done:
            raise UnusableImageError(result)
        return result


def _convert(item):
    """The function of the processes, of a file's bytes and ImageOptions."""
    content, options = item
    limit_memory(options.memory_bytes)
    return convert_image(content, options)
