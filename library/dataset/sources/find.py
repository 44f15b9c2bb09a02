"""Find labeled files in any source: a folder, an archive, a CSV file, TFRecord files or a URL."""

import re
from pathlib import Path

from library.dataset.sources.base import _ARCHIVE_SUFFIXES, is_archive
from library.errors import DataError

# Files at a URL, and what is named inside them: told by their names, without a look.
_REMOTE_TABLE = re.compile(r"(.*?://.*?\.csv)(?:/(.*))?", re.IGNORECASE)
_REMOTE_FILE = re.compile(r".*?://.*(\.zip|\.tar|\.tgz|\.tar\.\w+|\.tfrecord)(/.*)?", re.IGNORECASE)


def find_files(
    source, without=None, columns=(), with_content=False, label_separator="", follow_links=False
):
    """Yield the LabeledFiles of a source, in no certain order.

    `source` is a folder, a folder inside a zip or tar, a CSV file (or one of its sets:
    `images.csv/train`), a manifest, or TFRecord files (a file or a pattern). In a folder the first
    folder is the class: `cat/7.jpg`, `cat/indoors/8.jpg`; the folder `without` is not looked into,
    and links out of the source are followed only with `follow_links`.
    `columns` names a CSV file's columns; `label_separator` divides its labels, where images have
    several. What can only be read from front to back (a compressed
    tar) has its bytes in its place if they are wanted `with_content`, and can't be read otherwise.
    A folder, a CSV file or a manifest may be at a URL. Raises DataError where there is no such
    source.
    """
    # Each kind of source is a file of its own, which imports what it needs.
    if "://" in str(source):
        return _find_at_url(str(source).rstrip("/"), columns, label_separator)
    source = Path(source)
    if source.is_dir():
        from library.dataset.sources.folder import find_in_folder

        return find_in_folder(source, without, follow_links)
    if source.name.endswith((".tfrecord", ".manifest.json")) or "*" in source.name:
        from library.dataset.sources.tfrecords import find_in_shards

        return find_in_shards(source)
    for outer in (source, *source.parents):
        if outer.is_file():
            inside = source.relative_to(outer).as_posix()
            inside = "" if inside == "." else inside
            return _find_inside(outer, inside, columns, with_content, label_separator)
    raise DataError(f"there is no folder {source}: put images at {source}/<class>/<image>")


def _find_at_url(url, columns, label_separator):
    if table := _REMOTE_TABLE.fullmatch(url):
        from library.dataset.sources.table import find_in_table

        return find_in_table(table[1], table[2] or "", columns, label_separator)
    if url.endswith(".manifest.json"):
        from library.dataset.download import fetch_manifest
        from library.dataset.sources.tfrecords import find_in_shards

        return find_in_shards(fetch_manifest(url))
    if _REMOTE_FILE.fullmatch(url):
        raise DataError(
            f"{url}: at a URL can be folders, CSV files and manifests; copy this here first"
        )
    from library.dataset.sources.remote import find_in_url

    return find_in_url(url)


def is_there(source):
    """Return whether a folder, or a folder inside an archive, exists."""
    try:
        next(find_files(source), None)
    except DataError:
        return False
    return True


def _find_inside(path, inside, columns, with_content, label_separator):
    if path.suffix.lower() == ".csv":
        from library.dataset.sources.table import find_in_table

        return find_in_table(path, inside, columns, label_separator)
    if is_archive(path):
        from library.dataset.sources.archive import find_in_archive

        return find_in_archive(path, inside, with_content)
    raise DataError(f"{path} is a file, but no {', '.join(_ARCHIVE_SUFFIXES)} or .csv")
