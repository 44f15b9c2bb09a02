"""Sources → images → records → shards and a manifest."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from library.dataset.images import ImageOptions, UnusableImage, convert_image
from library.dataset.manifest import Manifest, Shard, shard_name, write_manifest
from library.dataset.records import Record, frame
from library.dataset.sources import find_files, read_content
from library.errors import DataError
from library.files import new_file


@dataclass(frozen=True)
class Options:
    images: ImageOptions = ImageOptions()
    num_shards: int = 8
    max_bad_fraction: float = 0.01


def convert(source, folder, name, options=Options(), classes=None):
    files = sorted(find_files(source, without=folder), key=_order)
    if not files:
        raise DataError(f"{source} holds no images: put them at {source}/<class>/<image>")
    classes = classes or tuple(sorted({file.label for file in files}))
    left_out = []
    counts = Counter()
    shards = []
    number = min(options.num_shards, len(files))
    with tqdm(total=len(files), unit="image", desc=name) as bar:
        for shard in range(number):
            path = Path(folder) / shard_name(name, shard, number)
            digest, written, size = hashlib.sha256(), 0, 0
            with new_file(path) as output:
                for file in files[shard::number]:
                    bar.update()
                    try:
                        jpeg, height, width = convert_image(
                            read_content(file.place), options.images
                        )
                    except UnusableImage as error:
                        left_out.append({"file": file.name, "reason": str(error)})
                        continue
                    record = Record(
                        jpeg, height, width, classes.index(file.label), file.label, file.name
                    )
                    framed = frame(record)
                    output.write(framed)
                    digest.update(framed)
                    size += len(framed)
                    written += 1
                    counts[file.label] += 1
            shards.append(Shard(path.name, written, size, digest.hexdigest()))
    manifest = Manifest(
        folder=Path(folder),
        name=name,
        classes=classes,
        class_counts=tuple(counts[each] for each in classes),
        shards=tuple(shards),
        left_out=tuple(left_out),
        left_out_count=len(left_out),
    )
    write_manifest(manifest)
    return manifest


def _order(file):
    return hashlib.blake2b(file.name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
