"""Find the labeled files of any source: a folder, an archive, a CSV file, TFRecord files, a URL."""

import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from library.dataset.sources.base import (
    ARCHIVE_SUFFIXES,
    IMAGE_SUFFIXES,
    SPLITS,
    LabeledFile,
    expand_records,
    is_archive,
    is_table,
    split_meant,
)
from library.dataset.sources.class_names import normalize_labels
from library.dataset.storage import is_remote
from library.errors import DataError

# Files at a URL, with the path inside them: recognized by name, without a request.
_REMOTE_TABLE = re.compile(r"(.*?://.*?\.[ct]sv)(?:/(.*))?", re.IGNORECASE)
_REMOTE_FILE = re.compile(r".*?://.*(\.zip|\.tar|\.tgz|\.tar\.\w+|\.tfrecord)(/.*)?", re.IGNORECASE)
# TFRecord files by name; others are recognized by their content.
_RECORDS = re.compile(r".*(\.tfrecords?|\.tfrec|\.records?)(\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class SourceOptions:
    """How to look for labeled files.

    Attributes:
        exclude: A folder inside the source that is not searched.
        columns: The columns of split, file and label in a CSV file; empty for SET, FILE, LABEL.
        label_separator: What separates the classes in a CSV file's label, for multi-label data.
        follow_links: Whether to follow links that lead out of the source.
        tfrecord_fields: The fields of TFRecord files, as `read_field_names` takes them.
        is_multi_label: Whether records of TFRecord files may have several classes, or none.
    """

    exclude: str | Path | None = None
    columns: Sequence[str] = ()
    label_separator: str = ""
    follow_links: bool = False
    tfrecord_fields: Sequence[str] = ()
    is_multi_label: bool = False


DEFAULT_OPTIONS = SourceOptions()


def find_files(
    source: str | Path, options: SourceOptions = DEFAULT_OPTIONS
) -> Iterator[LabeledFile]:
    """Yield the labeled files of a source, in any order.

    Args:
        source: A folder; a folder inside a zip or tar; a CSV file, or a split in it
            (`images.csv/train`); a manifest; or TFRecord files (one, or a pattern). A folder, a CSV
            file or a manifest may be at a URL. In a folder, the first folder is the class:
            `cat/7.jpg`, `cat/indoors/8.jpg`.
        options: How to look for files.

    Raises:
        DataError: There is no such source, or it cannot be read.
    """
    return normalize_labels(_find(source, options), source)


def _find(source: str | Path, options: SourceOptions) -> Iterator[LabeledFile]:
    # Each kind of source is a module of its own, which imports what it needs.
    if is_remote(source):
        return _find_at_url(str(source).rstrip("/"), options)
    source = Path(source)
    if source.is_dir():
        from library.dataset.sources.folder import find_in_folder

        return find_in_folder(source, options.exclude, options.follow_links)
    if is_records(source):
        return _find_in_records(source, options)
    for outer in (source, *source.parents):
        if outer.is_file():
            inside = source.relative_to(outer).as_posix()
            return _find_inside(outer, "" if inside == "." else inside, options)
    raise DataError(f"there is no folder {source}: put images at {source}/<class>/<image>")


def exists(source: str | Path, options: SourceOptions = DEFAULT_OPTIONS) -> bool:
    """Return whether a folder, or a folder inside an archive, exists."""
    try:
        next(find_files(source, options), None)
    except DataError:
        return False
    return True


def is_records(source: str | Path) -> bool:
    """Return whether a source is a manifest or TFRecord files, by their names or their content."""
    source = Path(source)
    if source.suffix.lower() in IMAGE_SUFFIXES:
        return False
    if source.name.endswith(".manifest.json") or _RECORDS.fullmatch(source.name):
        return True
    if glob.has_magic(str(source)) and not source.exists():
        found = expand_records(source)
        return bool(found) and all(map(is_records, found))
    if is_archive(source) or is_table(source) or not source.is_file():
        return False
    from library.dataset.compression import find_compression

    try:
        return find_compression(source) is not None
    except OSError:
        return False


def _find_in_records(source: Path, options: SourceOptions) -> Iterator[LabeledFile]:
    from library.dataset.record_fields import RecordFields, read_field_names
    from library.dataset.sources.tfrecords import find_in_records

    fields = RecordFields(read_field_names(options.tfrecord_fields), options.is_multi_label)
    return find_in_records(source, fields)


def find_split_folders(
    source: str | Path, options: SourceOptions = DEFAULT_OPTIONS
) -> dict[str, str]:
    """Return {split: folder} of the splits in a folder or an archive, or of a CSV file's sets."""
    names = _folder_names(source) or SPLITS
    found = [
        (SPLITS.index(split), name != split, name) for name in names if (split := split_meant(name))
    ]
    folders: dict[str, str] = {}
    for number, _, name in sorted(found):
        split = SPLITS[number]
        folder = f"{source}/{name}" if is_remote(source) else str(Path(source, name))
        if exists(folder, options):
            # A second folder that means the same split is one of its own.
            folders[name if split in folders else split] = folder
    return folders


def split_folder(source: str | Path, split: str) -> str:
    """Return the folder of a split in a folder or an archive: of its name, or that alone means it.

    So `val` is the folder of `validation`, unless there is one of this name too.
    """
    names = _folder_names(source)
    meant = [each for each in names if split_meant(each) == split]
    name = meant[0] if len(meant) == 1 and split not in names else split
    return f"{source}/{name}"


def _folder_names(source: str | Path) -> Sequence[str]:
    """Return the names of the folders in a folder or an archive, sorted; of all else, none."""
    if is_remote(source):
        return ()
    source = Path(source)
    if source.is_dir():
        with suppress(OSError):
            return sorted(each.name for each in source.iterdir() if each.is_dir())
    if not source.is_file() or not is_archive(source):
        return ()
    from library.dataset.sources.archive import find_members

    members = (each.name.removeprefix("./") for each in find_members(source))
    return sorted({each.split("/")[0] for each in members if "/" in each})


def _find_at_url(url: str, options: SourceOptions) -> Iterator[LabeledFile]:
    if table := _REMOTE_TABLE.fullmatch(url):
        from library.dataset.sources.table import find_in_table

        return find_in_table(table[1], table[2] or "", options.columns, options.label_separator)
    if url.endswith(".manifest.json"):
        from library.dataset.remote_splits import fetch_manifest

        return _find_in_records(fetch_manifest(url), options)
    if _REMOTE_FILE.fullmatch(url):
        raise DataError(
            f"{url}: only folders, CSV files and manifests can be at a URL; download it first"
        )
    from library.dataset.sources.remote import find_in_url

    return find_in_url(url)


def _find_inside(path: Path, inside: str, options: SourceOptions) -> Iterator[LabeledFile]:
    if is_table(path):
        from library.dataset.sources.table import find_in_table

        return find_in_table(path, inside, options.columns, options.label_separator)
    if is_archive(path):
        from library.dataset.sources.archive import find_in_archive

        return find_in_archive(path, inside)
    raise DataError(f"{path} is not a folder, and not {', '.join(ARCHIVE_SUFFIXES)} .csv or .tsv")
