"""The manifest of a converted split: classes, counts, shards and their hashes, in one JSON file.

Shards are read as the manifest lists them, never as they lie in the folder.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from library.dataset.options import ImageOptions, read_image_options
from library.dataset.sources.base import IMAGE_SUFFIXES
from library.errors import DataError, reason_of
from library.files import parse_json, read_regular_file, sha256_of, write_file

T = TypeVar("T")
FORMAT = "image-classification shards, version 1"
SUFFIX = ".manifest.json"
# The hash of all other entries. Manifests of version 0.1 have none.
_HASH = "sha256"
_KEYS = {
    *("format", "name", "labels", "classes", "class_counts", "examples", "shards", "settings"),
    *("left_out_count", "left_out"),
}
_MAX_SHARD_BYTES = 2**53
_SHA256 = re.compile("[0-9a-f]{64}")
_MAX_REJECTED_LISTED = 100
# To find out whether a folder has folders of images.
_MAX_FILES_LOOKED_AT = 1000
# On disk, whether images have one class each, or several (or none).
_SINGLE_LABEL, _MULTI_LABEL = "one", "several"


@dataclass(frozen=True, slots=True)
class Shard:
    """One TFRecord file."""

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A converted split.

    Attributes:
        classes: In the order of their ids; `class_counts` are in the same order.
        settings: How the split was converted.
        rejected: Of the first rejected files, {"file", "reason"}; `rejected_count` counts all.
        is_multi_label: Whether images may have several classes, or none.
        origin: The URL from which the split was downloaded; empty for a local one.
    """

    folder: Path
    name: str
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    shards: tuple[Shard, ...]
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    rejected: tuple[dict[str, str], ...] = field(default=(), hash=False)
    rejected_count: int = 0
    is_multi_label: bool = False
    origin: str = field(default="", compare=False)

    @property
    def examples(self) -> int:
        """The number of images."""
        return sum(shard.examples for shard in self.shards)

    @property
    def repair_hint(self) -> str:
        """What to do about a damaged shard."""
        if self.origin:
            return f"remove that file, and the next start downloads it again from {self.origin}"
        return "convert again"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The shards' paths, in order."""
        return tuple(self.folder / shard.file for shard in self.shards)

    @property
    def manifest_paths(self) -> tuple[Path, ...]:
        """The paths of the files that list the shards."""
        return (manifest_path(self.folder, self.name),)

    @property
    def fingerprint(self) -> str:
        """A hash that changes whenever an image, a label, the classes or the order changes."""
        content: list[Any] = [self.classes, [shard.sha256 for shard in self.shards]]
        if self.is_multi_label:
            # The same bytes are read as other labels.
            content.append(_MULTI_LABEL)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def image_options_of(split: Any) -> ImageOptions:
    """Return how the images of a split, converted or not, were prepared."""
    # What was never converted keeps its size: see unconverted.py.
    return read_image_options(split.settings if isinstance(split, Manifest) else {"max_edge": 0})


def describe_split(split: Any) -> dict[str, Any]:
    """Return what a snapshot records of its training split, converted or not, as JSON values."""
    return {
        "examples": split.examples,
        "class_counts": dict(zip(split.classes, split.class_counts, strict=True)),
        "fingerprint": split.fingerprint,
        "images": image_options_of(split).to_json(),
    }


def manifest_path(folder: Path | str, name: str) -> Path:
    """Return the path of the manifest of the split `name`."""
    return Path(folder) / f"{name}{SUFFIX}"


def shard_name(name: str, number: int, count: int) -> str:
    """Return the file name of a shard.

    Args:
        name: The split's name.
        number: Of the shard, from 0.
        count: How many shards the split has.
    """
    return f"{name}_{number:05d}-of-{count:05d}.tfrecord"


def read_manifest(folder: Path | str, name: str) -> Manifest:
    """Return the Manifest of the split `name`, after a check that its shards have their sizes.

    Raises DataError if there is none, or if it or a shard is damaged. The shards' content is not
    read: `check_hashes` does that.
    """
    manifest = read_manifest_file(manifest_path(folder, name), name)
    _check_sizes(manifest)
    return manifest


def find_manifest(folder: Path | str, name: str) -> Manifest | None:
    """Return the Manifest of the split `name`, or None if it or a shard is missing or damaged."""
    try:
        return read_manifest(folder, name)
    except DataError:
        return None


def read_manifest_file(path: Path | str, name: str | None = None) -> Manifest:
    """Return the Manifest in a file without a look at its shards. Raises DataError."""
    path = Path(path)
    name = name or path.name.removesuffix(SUFFIX)
    try:
        content = read_regular_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing; {_conversion_advice(path.parent, name)}") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {reason_of(error)}") from None
    return parse_manifest(content, path, path.parent, name)


def _conversion_advice(folder: Path, name: str) -> str:
    """Return the command that makes the split `name` from the images in or near its folder."""
    parent = folder.parent
    if not folder.exists() and _has_class_folders(parent):
        source, target = shlex.quote(str(parent)), shlex.quote(f"{parent}_converted")
        return (
            f"{parent} has folders of images, but no splits; to divide and convert them: python "
            f"convert_dataset.py --dataset_dir {source} --split validation=0.1,test=0.1 "
            f"--tfrecord_dir {target}; then use --data_dir {target}"
        )
    # Or in an archive beside it, as the sample's are.
    archive = Path(f"{parent}.zip")
    is_packed = archive.is_file() and not folder.is_dir()
    images = shlex.quote(str(archive / folder.name if is_packed else folder))
    return (
        f"to make it from your images: python convert_dataset.py --dataset_dir {images} "
        f"--tfrecord_filename {shlex.quote(name)} --tfrecord_dir {shlex.quote(str(folder))}"
    )


def _has_class_folders(folder: Path) -> bool:
    files = islice(folder.glob("[!.@]*/*"), _MAX_FILES_LOOKED_AT)
    return any(each.suffix.lower() in IMAGE_SUFFIXES for each in files)


def parse_manifest(content: bytes, where: object, folder: Path | str, name: str) -> Manifest:
    """Return the Manifest in a file's bytes. Raises DataError.

    Args:
        content: The JSON.
        where: What error messages call the file.
        folder: Where the shards are.
        name: The split's name.
    """
    try:
        fields = parse_json(content)
    except ValueError:
        raise DataError(_damaged(where, "it is not valid JSON")) from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise DataError(_damaged(where, f'its "format" is not {FORMAT!r}'))
    try:
        if _HASH in fields and fields.pop(_HASH) != _hash_fields(fields):
            raise ValueError("its hash is not that of its content")
        return _from_json(fields, Path(folder), name)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(_damaged(where, what)) from None


def write_manifest(manifest: Manifest) -> None:
    """Write the manifest, whole or not at all. Its shards must be in place already."""
    content = {
        "format": FORMAT,
        "name": manifest.name,
        "labels": _MULTI_LABEL if manifest.is_multi_label else _SINGLE_LABEL,
        "classes": manifest.classes,
        "class_counts": dict(zip(manifest.classes, manifest.class_counts, strict=True)),
        "examples": manifest.examples,
        "shards": [asdict(shard) for shard in manifest.shards],
        "settings": manifest.settings,
        "left_out_count": manifest.rejected_count,
        # The CSV of rejected files beside the manifest has all of them.
        "left_out": manifest.rejected[:_MAX_REJECTED_LISTED],
    }
    content[_HASH] = _hash_fields(content)
    text = json.dumps(content, indent=2) + "\n"
    write_file(manifest_path(manifest.folder, manifest.name), text)


def check_hashes(manifest: Manifest) -> None:
    """Read every shard. Raises DataError, naming the first whose bytes are not those written."""
    for shard, path in zip(manifest.shards, manifest.paths, strict=True):
        if sha256_of(path) != shard.sha256:
            raise DataError(f"{path} is damaged: its SHA-256 is not that in the manifest")


def _check_sizes(manifest: Manifest) -> None:
    listed_in = f"{manifest.name}{SUFFIX}"
    for shard, path in zip(manifest.shards, manifest.paths, strict=True):
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(
                f"{path}, listed in {listed_in}, can't be read: {reason_of(error)}; convert again"
            ) from None
        if size != shard.bytes:
            raise DataError(
                f"{path} has {size:,} bytes, not the {shard.bytes:,} of {listed_in}; convert again"
            )


def _damaged(where: object, what: str) -> str:
    return f"{where} is not a manifest of this project, or is damaged: {what}; convert again"


def _hash_fields(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _from_json(content: dict[str, Any], folder: Path, name: str) -> Manifest:
    if unknown := sorted(content.keys() - _KEYS):
        raise ValueError(f"{unknown[0]!r} is not one of its keys")
    classes = tuple(_get(content, "classes", list))
    if len(set(classes)) < len(classes) or not classes or not _are_texts(classes):
        raise ValueError('"classes" is empty, or has a class twice, or one that is no text')
    # Manifests from before multi-label conversion have no "labels".
    labels = content.get("labels", _SINGLE_LABEL)
    if labels not in (_SINGLE_LABEL, _MULTI_LABEL):
        raise ValueError(f'"labels" is {labels!r}, not {_SINGLE_LABEL} or {_MULTI_LABEL}')
    counts = _get(content, "class_counts", dict)
    manifest = Manifest(
        folder=folder,
        name=name,
        classes=classes,
        class_counts=tuple(_get_count(counts, each) for each in classes),
        shards=tuple(map(_shard_from_json, _get(content, "shards", list))),
        settings=_get(content, "settings", dict),
        rejected=tuple(map(_rejected_from_json, _get(content, "left_out", list))),
        rejected_count=_get_count(content, "left_out_count"),
        is_multi_label=labels == _MULTI_LABEL,
    )
    if len({shard.file for shard in manifest.shards}) < len(manifest.shards):
        raise ValueError("it lists a shard twice")
    read_image_options(manifest.settings)
    totals = {_get_count(content, "examples")}
    if not manifest.is_multi_label:
        totals.add(sum(manifest.class_counts))
    if totals != {manifest.examples} or max(manifest.class_counts) > manifest.examples:
        raise ValueError("its numbers of examples contradict each other")
    if manifest.examples == 0:
        raise ValueError("it has no examples")
    return manifest


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(each, str) and each for each in values)


def _rejected_from_json(content: dict[str, str]) -> dict[str, str]:
    if set(content) != {"file", "reason"} or not _are_texts(content.values()):
        raise ValueError('"left_out" has an entry that is not a file and a reason')
    return content


def _shard_from_json(content: dict[str, Any]) -> Shard:
    file, sha256 = _get(content, "file", str), _get(content, "sha256", str)
    # A shard lies beside its manifest; a path would let a foreign manifest reach anywhere.
    if Path(file).name != file or file in (".", "..") or "\0" in file:
        raise ValueError(f"the shard {file!r} is not beside it")
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"the SHA-256 of {file} is malformed")
    examples, size = _get_count(content, "examples"), _get_count(content, "bytes")
    if not examples <= size < _MAX_SHARD_BYTES:
        raise ValueError(f"{file} can't hold {examples:,} examples in {size:,} bytes")
    return Shard(file, examples, size, sha256)


def _get(content: dict[str, Any], key: str, kind: type[T]) -> T:
    value = content[key]
    if not isinstance(value, kind):
        raise TypeError(f'"{key}" is not a {kind.__name__}')
    return value


def _get_count(content: dict[str, Any], key: str) -> int:
    # bool is a subclass of int.
    if type(content[key]) is not int or content[key] < 0:
        raise ValueError(f'"{key}" is not a count')
    return content[key]
