"""The converted splits of one data folder, which must agree about the classes."""

from pathlib import Path

from library.dataset.manifest import read_manifest
from library.dataset.remote import is_remote
from library.errors import DataError


def read_splits(data_dir, *names):
    """Give the manifests of `<data_dir>/<name>/<name>.manifest.json`, in order.

    Raises DataError: with the command that converts a split, if one is missing; naming the
    classes, if two splits differ in them; if only one has several classes for each image; naming
    the split, if one is empty; for a URL.
    """
    if is_remote(data_dir):
        raise DataError(
            f"{data_dir}: converted shards are read from a local or mounted folder: copy them, or "
            "mount the bucket; or read the images themselves there, with data_format folder"
        )
    manifests = [read_manifest(Path(data_dir) / name, name) for name in names]
    first = manifests[0]
    for name, manifest in zip(names, manifests, strict=True):
        if not manifest.examples:
            raise DataError(f"the split {name} in {data_dir} is empty: convert some images")
        if manifest.labels != first.labels:
            raise DataError(
                f"the splits {names[0]} and {name} in {data_dir} have {first.labels} and "
                f"{manifest.labels} class for each image: convert both with the same "
                "--label_separator, or without"
            )
        if manifest.classes != first.classes:
            odd = sorted(set(first.classes) ^ set(manifest.classes))
            words = f"{', '.join(map(repr, odd[:5]))} in one only" if odd else "another order"
            raise DataError(
                f"the splits {names[0]} and {name} in {data_dir} have different classes ({words}): "
                "convert both again"
            )
    return manifests
