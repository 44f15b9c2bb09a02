"""Find images that are the same file or look alike, by exact and perceptual hashes."""

import hashlib

import cv2
import numpy as np

SIGNATURE_BYTES = 64
# Of 128 bits. Recompressed, resized and slightly brightened copies differ by fewer; two images of
# the same kind of thing by far more.
_MAX_BITS = 6
# More than _MAX_BITS: two hashes that differ in so few bits agree in at least one whole band.
_BANDS = 8
# Two shoes have the same edges, but not the same shades. In levels of 256, over 8 by 8 cells.
_MAX_MEAN_DIFFERENCE = 2.5
_MAX_DIFFERENCE = 16
# Blank images agree in every band with all others of their kind. Comparing each with so many is
# enough, because neighbors of neighbors end up in the same group.
_MAX_NEIGHBORS = 64

Groups = list[np.ndarray]


def exact_hash(content: bytes) -> int:
    """Return 64 bits that are equal for files with the same bytes."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def perceptual_hash(pixels: np.ndarray) -> tuple[int, int]:
    """Return two words of 64 bits: is a cell brighter than its right, than its lower neighbor?

    Args:
        pixels: uint8, gray, of any size.
    """
    small = cv2.resize(pixels, (9, 9), interpolation=cv2.INTER_AREA).astype(np.int16)
    # A difference of one level is noise, so a plain surface gives zeros.
    across = np.packbits(small[:8, :-1] > small[:8, 1:] + 1)
    down = np.packbits(small[:-1, :8] > small[1:, :8] + 1)
    return int.from_bytes(across.tobytes(), "big"), int.from_bytes(down.tobytes(), "big")


def signature(pixels: np.ndarray) -> bytes:
    """Return 64 signed bytes: how much brighter each cell of 8 by 8 is than the whole image."""
    small = cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.clip(small - round(small.mean()), -128, 127).astype(np.int8).tobytes()


def find_groups(
    exact: np.ndarray, perceptual: np.ndarray, signatures: np.ndarray
) -> tuple[Groups, Groups]:
    """Group images that are equal and images that look alike.

    Args:
        exact: uint64, shape (n,).
        perceptual: uint64, shape (n, 2).
        signatures: int8, shape (n, 64).

    Returns:
        (groups of equal files, groups of images that look alike), as arrays of indices. The latter
        have at least two images that aren't equal.
    """
    order = np.argsort(exact, kind="stable")
    same = exact[order[1:]] == exact[order[:-1]]
    equal_pairs = order[:-1][same], order[1:][same]
    equal = _connect(*equal_pairs)
    # One file of each group of equal ones is enough to compare; the others follow it.
    first = np.unique(exact, return_index=True)[1]
    near_pairs = _near_pairs(perceptual[first], signatures[first])
    alike = _connect(
        *(
            np.concatenate([one, first[other]])
            for one, other in zip(equal_pairs, near_pairs, strict=True)
        )
    )
    return equal, [group for group in alike if len(np.unique(exact[group])) > 1]


def _near_pairs(hashes: np.ndarray, signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of indices: pairs that differ in few bits and little brightness."""
    bands = hashes.view(np.uint16).reshape(len(hashes), _BANDS)
    lefts, rights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for band in range(_BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        values = bands[order, band]
        for step in range(1, min(_MAX_NEIGHBORS, len(order))):
            together = np.flatnonzero(values[step:] == values[:-step])
            if not len(together):
                break
            left, right = order[together], order[together + step]
            bits = np.bitwise_count(hashes[left] ^ hashes[right]).sum(axis=1)
            left, right = left[bits <= _MAX_BITS], right[bits <= _MAX_BITS]
            levels = np.abs(signatures[left].astype(np.int16) - signatures[right])
            near = levels.mean(axis=1) <= _MAX_MEAN_DIFFERENCE
            near &= levels.max(axis=1) <= _MAX_DIFFERENCE
            lefts.append(left[near])
            rights.append(right[near])
    return np.concatenate(lefts), np.concatenate(rights)


def _connect(left: np.ndarray, right: np.ndarray) -> Groups:
    """Return the connected components of two or more things, given as pairs."""
    parent: dict[int, int] = {}

    def root(thing: int) -> int:
        while (above := parent.get(thing, thing)) != thing:
            parent[thing] = parent.get(above, above)
            thing = above
        return thing

    for pair in zip(left.tolist(), right.tolist(), strict=True):
        one, other = sorted(map(root, pair))
        parent.setdefault(one, one)
        parent[other] = one
    groups: dict[int, list[int]] = {}
    for thing in sorted(parent):
        groups.setdefault(root(thing), []).append(thing)
    return [np.array(group) for group in groups.values() if len(group) > 1]
