"""A Hypothesis strategy of bytes: good inputs, with a few random changes."""

from hypothesis import strategies as some

# Numbers at which parsers fail: as one, two, four and eight bytes, in either order.
NUMBERS = [
    number.to_bytes(size, order, signed=False)
    for size in (1, 2, 4, 8)
    for number in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    for order in ("little", "big")
]


@some.composite
def mutated(draw, seeds, words=()):
    """Draw one of the seeds, or a few bytes, after up to five changes.

    Args:
        draw: Hypothesis's function.
        seeds: Good inputs.
        words: What to write over or insert, beside numbers and random bytes.
    """
    content = bytearray(draw(some.sampled_from([*seeds, b""])))
    pieces = some.one_of(
        some.binary(min_size=1, max_size=8), some.sampled_from(NUMBERS + list(words))
    )
    for _ in range(draw(some.integers(0, 5))):
        start = draw(some.integers(0, len(content)))
        end = start + draw(some.integers(0, 32))
        kind = draw(some.sampled_from(("flip", "write", "insert", "delete", "repeat", "cut")))
        if kind == "flip" and start < len(content):
            content[start] ^= 1 << draw(some.integers(0, 7))
        elif kind == "write":
            piece = draw(pieces)
            content[start : start + len(piece)] = piece
        elif kind == "insert":
            content[start:start] = draw(pieces)
        elif kind == "delete":
            del content[start:end]
        elif kind == "repeat":
            content[end:end] = content[start:end] * draw(some.integers(1, 50))
        elif kind == "cut":
            del content[start:]
    return bytes(content)
