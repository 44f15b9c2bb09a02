"""Names that tell variables apart, where those that their makers gave do not."""

from itertools import count


def distinct(names):
    """Give as many names, no two of them equal: the first keeps its own, later ones get a number.

    `kernel`, `bias`, `kernel` become `kernel`, `bias`, `kernel_1`.
    """
    names = list(names)
    given, found = set(names), {}
    for name in names:
        if name in found:
            numbered = (f"{name}_{number}" for number in count(1))
            name = next(each for each in numbered if each not in given and each not in found)
        found[name] = None
    return list(found)
