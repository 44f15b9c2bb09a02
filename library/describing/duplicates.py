"""Which images are the same, and which look the same: exact and perceptual hashes, in groups."""

import hashlib

import cv2
import numpy as np

# Of 128 bits. Recompressed, resized and slightly brightened copies differ by less; two images of
# the same kind of thing, by far more.
_NEAR_BITS = 6
# More than _NEAR_BITS bands: two hashes that differ in so few bits agree in one whole band.
_BANDS = 8
# Two shoes have the same edges, but not the same shades: of 256 levels, over 8 by 8 spots.
_MEAN_LEVELS = 2.5
_MOST_LEVELS = 16
SIGNATURE_BYTES = 64
# Blank images agree in every band with all others of their kind. Looking so far is enough, for
# neighbors of neighbors end up in the same group.
_FARTHEST = 64


def exact_hash(content):
    """Return 64 bits that two files share if their bytes are the same."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def perceptual_hash(pixels):
    """Return two words of 64 bits: is each spot brighter than its right, its lower neighbor?

    `pixels` are uint8, gray, of any size.
    """
    small = cv2.resize(pixels, (9, 9), interpolation=cv2.INTER_AREA).astype(np.int16)
    # A difference of one level is noise: a plain surface gives zeros.
    across = np.packbits(small[:8, :-1] > small[:8, 1:] + 1)
    down = np.packbits(small[:-1, :8] > small[1:, :8] + 1)
    return int.from_bytes(across.tobytes(), "big"), int.from_bytes(down.tobytes(), "big")


def signature(pixels):
    """Return 64 signed bytes: how much brighter each eighth of an eighth is than the whole."""
    small = cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.clip(small - round(small.mean()), -128, 127).astype(np.int8).tobytes()


def find_groups(exact, perceptual, signatures):
    """Give (groups of equal files, groups of images that look alike), as arrays of indices.

    `exact` has shape (n,), `perceptual` (n, 2), both uint64; `signatures` (n, 64), int8. A group
    that looks alike holds at least two files that aren't equal.
    """
    order = np.argsort(exact, kind="stable")
    same = exact[order[1:]] == exact[order[:-1]]
    equal = _connected(len(exact), order[:-1][same], order[1:][same])
    # One of each group of equal files is enough to compare; the others follow it.
    first = np.unique(exact, return_index=True)[1]
    left, right = _near_pairs(perceptual[first], signatures[first])
    pairs = (
        np.concatenate([order[:-1][same], first[left]]),
        np.concatenate([order[1:][same], first[right]]),
    )
    near = _connected(len(exact), *pairs)
    return equal, [group for group in near if len(np.unique(exact[group])) > 1]


def _near_pairs(hashes, signatures):
    """Return two arrays of indices: pairs with few bits and little brightness apart."""
    bands = hashes.view(np.uint16).reshape(len(hashes), _BANDS)
    lefts, rights = [], []
    for band in range(_BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        values = bands[order, band]
        for step in range(1, min(_FARTHEST, len(order))):
            together = np.flatnonzero(values[step:] == values[:-step])
            if not len(together):
                break
            left, right = order[together], order[together + step]
            apart = np.bitwise_count(hashes[left] ^ hashes[right]).sum(axis=1)
            left, right = left[apart <= _NEAR_BITS], right[apart <= _NEAR_BITS]
            levels = np.abs(signatures[left].astype(np.int16) - signatures[right])
            near = (levels.mean(axis=1) <= _MEAN_LEVELS) & (levels.max(axis=1) <= _MOST_LEVELS)
            lefts.append(left[near])
            rights.append(right[near])
    nothing = [np.zeros(0, np.int64)]
    return np.concatenate(lefts or nothing), np.concatenate(rights or nothing)


def _connected(count, left, right):
    """Return the groups of two or more among `count` things that the pairs connect."""
    parent = {}

    def root(thing):
        while (above := parent.get(thing, thing)) != thing:
            parent[thing] = parent.get(above, above)
            thing = above
        return thing

    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        one, other = sorted((root(one), root(other)))
        parent.setdefault(one, one)
        parent[other] = one
    groups = {}
    for thing in sorted(parent):
        groups.setdefault(root(thing), []).append(thing)
    return [np.array(group) for group in groups.values() if len(group) > 1]
