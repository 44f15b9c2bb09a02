"""Images for benchmarks: random batches, photograph-like JPEGs, and crops of photographs."""

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def make_batches(
    shape: tuple[int, int, int], classes: int, batch_size: int, batches: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Return random uint8 images (batch_size * batches, *shape), and int64 labels."""
    generator = np.random.default_rng(0)
    count = batch_size * batches
    images = generator.integers(0, 256, (count, *shape), np.uint8)
    return images, generator.integers(0, classes, count)


def find_images(folder: str | Path) -> list[Path]:
    """Return the JPEGs in a folder and those below, sorted."""
    found = sorted(Path(folder).rglob("*"))
    return [p for p in found if p.suffix.lower() in (".jpg", ".jpeg") and not p.is_symlink()]


def path_of(folder: str, number: int, classes: int = 10) -> Path:
    """Return where image `number` goes, in one of the class folders."""
    path = Path(folder, f"class_{number % classes}", f"{number:05d}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_synthetic(folder: str, count: str, size: str = "500x375", classes: str = "10") -> None:
    """Write JPEGs with the spectrum of photographs in class folders.

    With 500 x 375 pixels they have about 100 kB, the size of ImageNet's.
    """
    width, height = map(int, size.split("x"))
    for number, image in enumerate(make_synthetic((width, height), int(count))):
        image.save(path_of(folder, number, int(classes)), quality=95)


def make_synthetic(size: tuple[int, int], count: int) -> Iterator[Image.Image]:
    """Yield images with the spectrum of photographs: the larger a shape, the stronger it is."""
    generator = np.random.default_rng(0)
    width, height = size
    for _ in range(count):
        pixels = generator.normal(0, 9, (height, width, 3))
        for edge in (4, 8, 16, 32, 64, 128, 256):
            shape = (height // edge + 2, width // edge + 2, 3)
            coarse = generator.normal(0, 1, shape).astype(np.float32)
            planes = [Image.fromarray(coarse[..., each]) for each in range(3)]
            smooth = [each.resize(size, Image.Resampling.BICUBIC) for each in planes]
            pixels += 3 * edge**0.6 * np.stack(smooth, -1)
        yield Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))


def write_crops(folder: str, photographs: str, size: str, count: str, copies: str) -> None:
    """Write random crops of photographs as JPEGs in ten class folders.

    Args:
        folder: Where to write.
        photographs: A folder of JPEGs; without any there, they are crops of synthetic images.
        size: 'WIDTHxHEIGHT' in pixels.
        count: Number of crops.
        copies: Number of files that each crop is written to.
    """
    width, height = map(int, size.split("x"))
    sources: Sequence[Path | Image.Image] = find_images(photographs)
    sources = sources or list(make_synthetic((2 * width, 2 * height), 4))
    generator = random.Random(0)
    each = -(-int(count) // len(sources))
    for number in range(int(count)):
        if number % each == 0:
            image = read(sources[number // each], (3 * width, 3 * height))
        path = path_of(folder, number)
        crop(image, (width, height), generator).save(path, "JPEG", quality=90)
        for copy in range(1, int(copies)):
            shutil.copyfile(path, path.with_stem(f"{path.stem}_{copy}"))


def read(source: Path | Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image, decoded at a reduced scale not smaller than `size` if it is a file."""
    if isinstance(source, Image.Image):
        return source
    with Image.open(source) as opened:
        # Decoding all of a wallpaper for each small photograph would take an hour.
        opened.draft("RGB", size)
        return opened.convert("RGB")


def crop(image: Image.Image, size: tuple[int, int], generator: random.Random) -> Image.Image:
    """Return a random part of an image, half its width or more, scaled to `size`."""
    width, height = image.size
    wide = generator.uniform(0.5, 1) * min(width, height * size[0] / size[1])
    high = wide * size[1] / size[0]
    left, top = generator.uniform(0, width - wide), generator.uniform(0, height - high)
    box = (left, top, left + wide, top + high)
    return image.resize(size, Image.Resampling.BICUBIC, box=box)
