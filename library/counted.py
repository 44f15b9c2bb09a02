"""A number and what it counts, for messages: 1 image, 4,000 images."""


def counted(number, one, many=None):
    """Give `1 image`, `0 images`, `4,000 images`; `many` where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def counted_classes(number):
    """Give `1 class`, `10 classes`."""
    return counted(number, "class", "classes")
