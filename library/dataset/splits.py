"""The converted splits of one data folder, which must agree about the classes."""

from pathlib import Path

from library.dataset.manifest import SUFFIX, manifest_path, read_manifest, read_manifest_file
from library.dataset.sources.base import SPLITS
from library.dataset.storage import is_remote
from library.errors import DataError


def read_splits(data_dir, *names):
    """Return the manifests of `<data_dir>/<name>/<name>.manifest.json`, in order.

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
    """Return the manifest of the split `name` in a folder or at a URL. Raises UserError."""
    manifest = _find_split(folder, name)
    _bring([manifest])
    return manifest


def _find_split(folder, name):
    if not is_remote(folder):
        return read_manifest(folder, name)
    from library.dataset.download import find_split

    return find_split(str(folder).rstrip("/"), name)


def _bring(manifests):
    """Fetch the shards of those that are at a URL."""
    if remote := [each for each in manifests if each.origin]:
        from library.dataset.download import fetch_shards

        fetch_shards(remote)


def _check_agreement(data_dir, names, manifests):
    first = manifests[0]
    for name, manifest in zip(names, manifests, strict=True):
        if not manifest.examples:
            raise DataError(f"the split {name} in {data_dir} is empty: convert some images")
        if manifest.is_multi_label != first.is_multi_label:
            raise DataError(
                f"the splits {names[0]} and {name} in {data_dir}: only one has several classes per "
                "image: convert both with the same --label_separator, or without"
            )
        if manifest.classes != first.classes:
            odd = sorted(set(first.classes) ^ set(manifest.classes))
            words = f"{', '.join(map(repr, odd[:5]))} in one only" if odd else "another order"
            raise DataError(
                f"the splits {names[0]} and {name} in {data_dir} have different classes ({words}): "
                "convert both again"
            )


TRAINING = SPLITS[0]
# What is written between several classes of an image.
_SEPARATORS = "|;,+&/"


def find_training_manifest(folder, name):
    """Return the path of the training split's manifest beside the split `name`, or None.

    Looked for in `folder` itself, and in the folder `train` beside it.
    """
    if name == TRAINING:
        return None
    for candidate in (Path(folder), Path(folder).parent / TRAINING):
        path = manifest_path(candidate, TRAINING)
        if path.is_file():
            return path
    return None


def order_classes(labels, training_manifest=None):
    """Return the classes in the order of their ids.

    Those of the training split where its manifest is given; else the labels found, by code point.
    Raises DataError for a label that the training split lacks.
    """
    if training_manifest is None:
        return tuple(sorted(labels))
    path = training_manifest
    if not is_remote(path) and Path(path).is_dir():
        path = Path(path) / f"{TRAINING}{SUFFIX}"
    classes = _read(path).classes
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise DataError(
            f"{_names(unknown)} not among the classes of {path} ({', '.join(classes[:10])}"
            f"{', …' if len(classes) > 10 else ''}): rename or remove what is not, or convert "
            "the training split again if its classes have changed"
        )
    return classes


def find_joined(classes):
    """Give (class, separator) of one whose name is made of others', as cat|dog is, or None."""
    known = set(classes)
    for name in classes:
        for separator in _SEPARATORS:
            parts = name.split(separator)
            if len(parts) > 1 and known.issuperset(each.strip() for each in parts):
                return name, separator
    return None


def _read(path):
    if not is_remote(path):
        return read_manifest_file(path)
    from library.dataset.download import find_split

    url, _, file = path.rpartition("/")
    return find_split(url, file.removesuffix(SUFFIX))


def _names(names):
    shown = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
    return f"the class {shown} is" if len(names) == 1 else f"the classes {shown} are"
