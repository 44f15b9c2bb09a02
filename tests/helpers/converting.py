"""What the tests of conversion share: convert a folder in this process, and read the result."""

from library.dataset.conversion import ConversionOptions, Source, convert
from library.dataset.images import ImageOptions
from library.dataset.records import read_frames, read_record
from library.dataset.sources.find import SourceOptions

OPTIONS = ConversionOptions(ImageOptions(max_edge=32), num_workers=1)


def run(source, folder, options=OPTIONS, name="train"):
    return convert(Source(str(source), name, SourceOptions(folder)), folder, name, options)


def records(manifest):
    for path in manifest.paths:
        with path.open("rb") as file:
            for _, content in read_frames(file, path):
                yield read_record(content, path, multi_label=manifest.is_multi_label)


def filenames(manifest):
    return {each.filename for each in records(manifest)}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
