"""The converted splits of one data folder, which must agree about the classes."""

from library.dataset.manifest import read_manifest
from library.dataset.stores import is_remote
from library.errors import DataError


def read_splits(data_dir, *names):
    """Give the manifests of `<data_dir>/<name>/<name>.manifest.json`, in order.

    Shards at a URL are fetched first, once: the manifests are those of the local copies.
    Raises DataError: with the command that converts a split, if one is missing; naming the
    classes, if two splits differ in them; if only one has several classes for each image; naming
    the split, if one is empty. Raises UserError where shards can't be fetched.
    """
    data_dir = str(data_dir).rstrip("/") or "/"
    manifests = [_find_split(f"{data_dir}/{name}", name) for name in names]
    # Before what may be many gigabytes are fetched.
    _check_agreement(data_dir, names, manifests)
    _bring(manifests)
    return manifests


def read_split(folder, name):
    """Give the manifest of the split `name` in a folder or at a URL. Raises UserError."""
    manifest = _find_split(folder, name)
    _bring([manifest])
    return manifest


def _find_split(folder, name):
    if not is_remote(folder):
        return read_manifest(folder, name)
    from library.dataset.fetching import find_split

    return find_split(str(folder).rstrip("/"), name)


def _bring(manifests):
    """Fetch the shards of those that are at a URL."""
    if remote := [each for each in manifests if each.origin]:
        from library.dataset.fetching import fetch_shards

        fetch_shards(remote)


def _check_agreement(data_dir, names, manifests):
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
