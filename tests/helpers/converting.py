"""What the tests of conversion share: convert a folder in this process, and look at what came."""

from library.dataset.conversion import ConversionOptions, convert
from library.dataset.images import ImageOptions
from library.dataset.records import read_frames, read_record
from library.dataset.sources.find import SourceOptions, find_files

OPTIONS = ConversionOptions(ImageOptions(max_edge=32), num_workers=1)


def run(source, folder, options=OPTIONS, name="train", **others):
    return convert(
        lambda with_content=False: find_files(source, SourceOptions(folder), with_content),
        folder,
        name,
        options,
        source=source,
        **others,
    )


def records(manifest):
    for path in manifest.paths:
        with path.open("rb") as file:
            yield from (read_record(content, path) for _, content in read_frames(file, path))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
