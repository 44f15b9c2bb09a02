"""What a converted split holds: classes, counts, shards and their hashes, in one JSON file.

Whoever reads shards reads those that the manifest lists, never whatever lies in the folder.
"""

import hashlib
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from library.errors import DataError, reason_of
from library.files import sha256_of, write_file

FORMAT = "image-classification shards, version 1"
SUFFIX = ".manifest.json"
_SHA256 = re.compile("[0-9a-f]{64}")
_LEFT_OUT_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Shard:
    """One TFRecord file."""

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A converted split. `class_counts` are in the order of `classes`, which is that of labels."""

    folder: Path
    name: str
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    shards: tuple[Shard, ...]
    # How the split was converted, and which images were left out: [{"file", "reason"}, …], of
    # which there are `left_out_count`.
    settings: dict = field(default_factory=dict, hash=False)
    left_out: tuple[dict, ...] = field(default=(), hash=False)
    rejected_count: int = 0
    # How many classes an image has: `one`, or `several` (or none).
    labels: str = "one"
    # The URL from which it was fetched, none where it lies.
    origin: str = field(default="", compare=False)

    @property
    def examples(self):
        """How many images there are."""
        return sum(shard.examples for shard in self.shards)

    @property
    def is_multi_label(self):
        """Whether images may have several classes, or none."""
        return self.labels == "several"

    @property
    def repair_hint(self):
        """What to do about a damaged shard."""
        if self.origin:
            return f"remove that file, and the next start fetches it again from {self.origin}"
        return "convert again"

    @property
    def paths(self):
        """The shards' paths, in order."""
        return tuple(self.folder / shard.file for shard in self.shards)

    @property
    def fingerprint(self):
        """A hash that changes whenever an image, a label, the classes or the order changes."""
        content = [self.classes, [shard.sha256 for shard in self.shards]]
        if self.is_multi_label:
            # Even of the same bytes, other labels are read.
            content.append(self.labels)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def manifest_path(folder, name):
    """Return the path of the manifest of the split `name`."""
    return Path(folder) / f"{name}{SUFFIX}"


def shard_name(name, number, count):
    """Return the file name of a shard, numbered from 0."""
    return f"{name}_{number:05d}-of-{count:05d}.tfrecord"


def conversion_command(folder, name):
    """Return the command that makes the split `name` from the images in `folder`."""
    folder = Path(folder)
    # Or in an archive beside it, as the sample's are.
    archive = Path(f"{folder.parent}.zip")
    is_packed = archive.is_file() and not folder.is_dir()
    source = shlex.quote(str(archive / folder.name if is_packed else folder))
    where, name = shlex.quote(str(folder)), shlex.quote(name)
    return (
        f"python convert_dataset.py --dataset_dir {source} "
        f"--tfrecord_filename {name} --tfrecord_dir {where}"
    )


def read_manifest(folder, name):
    """Return the Manifest of the split `name` in `folder`; its shards exist and have right size.

    Raises DataError where there is none, or where it or a shard is damaged. The shards' content is
    not read: `check_hashes` does that.
    """
    manifest = read_manifest_file(manifest_path(folder, name), name)
    _check_sizes(manifest)
    return manifest


def read_manifest_file(path, name=None):
    """Return the Manifest in a file, whatever became of its shards. Raises DataError."""
    path = Path(path)
    name = name or path.name.removesuffix(SUFFIX)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        command = conversion_command(path.parent, name)
        raise DataError(f"{path} is missing; this makes it from your images: {command}") from None
    except OSError as error:
        raise DataError(f"{path} can't be read: {reason_of(error)}") from None
    return parse_manifest(content, path, path.parent, name)


def parse_manifest(content, where, folder, name):
    """Return Manifest in a file's bytes, of shards in `folder`. Raises DataError, naming `where`.

    Nothing is asked about the shards.
    """
    try:
        content = json.loads(content)
    except (ValueError, RecursionError):
        raise DataError(_damaged(where, "it is not whole JSON")) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(_damaged(where, f'its "format" is not {FORMAT!r}'))
    try:
        return _from_json(content, folder, name)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(_damaged(where, what)) from None


def write_manifest(manifest):
    """Write the manifest, whole or not at all. Its shards must be in place already."""
    write_file(manifest_path(manifest.folder, manifest.name), _to_json(manifest))


def check_hashes(manifest):
    """Read every shard. Raises DataError, naming the first whose bytes are not those written."""
    for shard, path in zip(manifest.shards, manifest.paths, strict=True):
        if sha256_of(path) != shard.sha256:
            raise DataError(f"{path} is damaged: its SHA-256 is not that in the manifest")


def _damaged(where, what):
    return f"{where} is not a manifest of this project, or is damaged: {what}; convert again"


def _to_json(manifest):
    return (
        json.dumps(
            {
                "format": FORMAT,
                "name": manifest.name,
                "labels": manifest.labels,
                "classes": manifest.classes,
                "class_counts": dict(zip(manifest.classes, manifest.class_counts, strict=True)),
                "examples": manifest.examples,
                "shards": [
                    {each: getattr(shard, each) for each in ("file", "examples", "bytes", "sha256")}
                    for shard in manifest.shards
                ],
                "settings": manifest.settings,
                "left_out_count": manifest.rejected_count,
                # The rest is in the CSV of rejected images beside the manifest.
                "left_out": manifest.left_out[:_LEFT_OUT_SHOWN],
            },
            indent=2,
        )
        + "\n"
    )


def _from_json(content, folder, name):
    classes = tuple(_checked(each, str, "a class") for each in content["classes"])
    if len(set(classes)) < len(classes) or not classes:
        raise ValueError("its classes are none, or one is there twice")
    counts = content["class_counts"]
    manifest = Manifest(
        folder=Path(folder),
        name=name,
        classes=classes,
        class_counts=tuple(_count(counts[each], "a class count") for each in classes),
        shards=tuple(_shard_from_json(each) for each in content["shards"]),
        settings=_checked(content["settings"], dict, "settings"),
        left_out=tuple(_checked(content["left_out"], list, "left_out")),
        rejected_count=_count(content["left_out_count"], "left_out_count"),
        # Those written before images could have several do not say so.
        labels=content.get("labels", "one"),
    )
    if manifest.labels not in ("one", "several"):
        raise ValueError(f'its "labels" are {manifest.labels!r}, not one or several')
    totals = {_count(content["examples"], "examples")}
    if manifest.labels == "one":
        totals.add(sum(manifest.class_counts))
    if totals != {manifest.examples} or max(manifest.class_counts) > manifest.examples:
        raise ValueError("its numbers of examples contradict each other")
    if manifest.examples == 0:
        raise ValueError("it holds no examples")
    return manifest


def _shard_from_json(content):
    file = _checked(content["file"], str, "a shard's file")
    # A shard lies beside its manifest; a path would let a foreign manifest reach anywhere.
    if Path(file).name != file or file in (".", ".."):
        raise ValueError(f"the shard {file!r} is not beside it")
    if not _SHA256.fullmatch(_checked(content["sha256"], str, "a SHA-256")):
        raise ValueError(f"the SHA-256 of {file} is none")
    return Shard(
        file,
        _count(content["examples"], "a shard's examples"),
        _count(content["bytes"], "a shard's bytes"),
        content["sha256"],
    )


def _checked(value, kind, what):
    if not isinstance(value, kind):
        raise TypeError(f"{what} is {type(value).__name__}, not {kind.__name__}")
    return value


def _count(value, what):
    # bool is an int to Python, and not to us.
    if type(value) is not int or value < 0:
        raise ValueError(f"{what} is no count")
    return value


def _check_sizes(manifest):
    for shard, path in zip(manifest.shards, manifest.paths, strict=True):
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(
                f"{path}, which {manifest.name}{SUFFIX} lists, can't be read: {reason_of(error)}; "
                "convert again"
            ) from None
        if size != shard.bytes:
            raise DataError(
                f"{path} has {size:,} bytes, not the {shard.bytes:,} that {manifest.name}{SUFFIX} "
                "lists: it is damaged, or from another conversion; convert again"
            )
