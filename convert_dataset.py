"""The command line: labeled images → TFRecord shards and a manifest. TensorFlow is not needed."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from library.errors import DataError, SettingsError, missing_package, run_main
from library.messages import counted, counted_classes

try:
    from pydantic import Field

    from library.configuration.command_line import Command, Program
    from library.configuration.reader import read_options
    from library.configuration.schema import (
        Count,
        CountOrZero,
        FractionBelowOne,
        Keys,
        LocalPath,
        Positive,
        Text,
        Words,
        key,
    )
except ModuleNotFoundError as error:  # The wrong Python: most likely, .venv is not active.
    sys.exit(f"convert_dataset.py: error: {missing_package(error) or error}")

ABOUT = (
    "Convert labeled images, <dataset_dir>/<class>/<image>, into TFRecord shards. A conversion "
    "that was stopped goes on where it was when the same command is given again. Images are never "
    "changed; those that can't be used are listed in <name>.rejected.csv."
)
_COMMANDS = {
    "convert": Command("make shards and a manifest"),
    "inspect": Command("look at the images instead: counts, sizes, duplicates; as text and HTML"),
}
PROGRAM = Program("convert_dataset.py", ABOUT, _COMMANDS)


class Source(Keys):
    """What to convert."""

    heading = "Source"
    dataset_dir: Text | None = key(
        None,
        "folder of class folders, the same in a zip or tar (images.zip/train), a CSV file (or one "
        "of its sets: images.csv/train), a manifest, or *.tfrecord; at a URL (gs://…, s3://…): a "
        "folder, a CSV file, a manifest",
    )
    source: Literal["fashion_mnist", "cifar10", "cifar100", "mnist"] | None = key(
        None, "one of Keras's datasets in the place of dataset_dir; downloaded"
    )
    csv_columns: Words = key((), "a CSV file's columns of set, file and label, if not so called")
    label_separator: Text | None = key(
        None, "what divides a CSV cell of several classes, as | in cat|dog; empty cells: none"
    )
    follow_links: bool = key(False, "also read what links lead to outside the folder of images")
    classes_from: Text | None = key(
        None, "manifest that fixes the classes; none: that of the training split beside this one"
    )


class Destination(Keys):
    """Where to write it."""

    heading = "Destination"
    tfrecord_filename: Text | None = key(
        None, "name of the split; none: the last word of dataset_dir, if that is a split's"
    )
    tfrecord_dir: Text | None = key(None, "folder of the shards; none: dataset_dir")
    num_shards: CountOrZero = key(0, "number of shards; 0: of about 128 MiB, 8 for small ones")
    random_seed: CountOrZero = key(0, "seed of the order of images, and of --split")
    append: bool = key(False, "add images to a converted split; its shards stay as they are")
    split: Words = key(
        (), "divide into <tfrecord_dir>/<split>: validation=0.1,test=0.1; train has the rest"
    )
    group_by: Text | None = key(
        None, "pattern in a file's path; what has the same match stays in one split"
    )


class Images(Keys):
    """How images are stored."""

    heading = "Images"
    max_edge: CountOrZero = key(384, "shrink to no more than so many pixels an edge; 0: never")
    quality: Annotated[int, Field(ge=1, le=100)] = key(95, "of the JPEGs written")
    color_space: Literal["rgb", "gray"] = key("rgb", "of the JPEGs written")
    background: Text = key("white", "color behind what is transparent: a name, or #rrggbb")
    max_megapixels: Positive = key(128.0, "refuse larger images before decoding them")
    max_bad_fraction: FractionBelowOne = key(0.01, "of the images may be unusable")


class Running(Keys):
    """How to run."""

    heading = "Runtime"
    num_workers: Count | None = key(None, "processes that decode; none: one for each core")
    seconds_per_image: Positive = key(60.0, "give an image up that takes longer to decode")
    verify: bool = key(False, "only check a converted split: every hash, record and image")
    report: LocalPath = key("out/inspection.html", "HTML page that inspect writes")
    verbose: bool = key(False, "show where an error came from")


class Settings(Source, Destination, Images, Running):
    """All of them"""


def main(arguments):
    """Do what the command line says."""
    options = read_options(Settings, arguments, PROGRAM)
    if options.answer is not None:
        print(options.answer)
        return
    settings = options.settings
    if options.command == "inspect":
        inspect(settings)
    elif settings.verify:
        verify(settings)
    elif settings.split:
        convert_splits(settings)
    else:
        convert_one(settings, split_name(settings), shard_folder(settings))


def convert_splits(settings):
    """Divide one source into several splits, the training split first: it fixes the classes."""
    from library.dataset.split_assignment import Splitter, read_fractions

    if settings.tfrecord_filename or settings.append:
        raise SettingsError("split: the splits name the files; leave out tfrecord_filename, append")
    if settings.tfrecord_dir is None:
        raise SettingsError("split: tfrecord_dir is missing: the folder of the splits' folders")
    fractions = read_fractions(settings.split)
    if settings.source and "test" in fractions:
        raise SettingsError(
            f"split: {settings.source} has a test part of its own: leave test out, and convert it "
            "with --tfrecord_filename test"
        )
    splitter = Splitter(fractions, settings.group_by, settings.random_seed)
    for split in fractions:
        folder = f"{settings.tfrecord_dir}/{split}"
        convert_one(settings, split, folder, partial(splitter.divide, split=split))
        for label, count in splitter.lacking(split).items():
            words = f"{split} has no image of {label!r} ({counted(count, 'image')} in all)"
            print(words, file=sys.stderr)


def convert_one(settings, name, folder, divide=iter):
    """Convert one split to a folder or URL, and say what came of it.

    `divide` gives those of all files that belong to it.
    """
    if "://" not in str(folder):
        print(result(*convert_to_folder(settings, name, Path(folder), divide)))
        return
    import shutil

    from library.dataset.remote_splits import fetch_training_manifest, upload
    from library.dataset.storage import local_folder

    if settings.append:
        raise SettingsError(f"append: {folder} is remote; append to a local copy and upload that")
    local = local_folder(str(folder))
    fetch_training_manifest(str(folder), local)
    manifest, _ = convert_to_folder(settings, name, local, divide)
    upload(manifest, str(folder))
    print(result(manifest, at=folder))
    shutil.rmtree(local.parent)


def convert_to_folder(settings, name, folder, divide):
    """Convert one split; give its Manifest, and that of the split that it was appended to."""
    from library.dataset.conversion import convert
    from library.dataset.manifest import manifest_path, read_manifest
    from library.dataset.splits import find_training_manifest, order_classes

    base = names = None
    fixed_by = settings.classes_from or find_training_manifest(folder, name)
    if settings.append:
        from library.dataset.verification import converted_names

        base, fixed_by = read_manifest(folder, name), manifest_path(folder, name)
        names = converted_names(base)

    def find(with_content=False):
        for file in divide(find_source(settings, name, folder, with_content)):
            if names is None or file.name not in names:
                yield file

    manifest = convert(
        find,
        folder,
        name,
        conversion_options(settings),
        partial(order_classes, training_manifest=fixed_by),
        settings.source or settings.dataset_dir,
        base,
    )
    return manifest, base


def find_source(settings, name, folder, with_content=False):
    """Yield the LabeledFiles that the settings ask for; see `find_files`."""
    from library.dataset.sources.find import SourceOptions, find_files

    if settings.source is None:
        if settings.dataset_dir is None:
            raise SettingsError("dataset_dir is missing: say which images, such as dataset/train")
        options = SourceOptions(
            folder, settings.csv_columns, settings.label_separator or "", settings.follow_links
        )
        return find_files(settings.dataset_dir, options, with_content)
    from library.dataset.sources.keras_datasets import find_in_keras

    return find_in_keras(settings.source, name)


def conversion_options(settings):
    """Return the ConversionOptions that the settings ask for."""
    from PIL import ImageColor

    from library.dataset.conversion import ConversionOptions
    from library.dataset.images import ImageOptions

    try:
        background = ImageColor.getrgb(settings.background)[:3]
    except ValueError:
        raise SettingsError(
            f"background: {settings.background!r} is no color; write a name, or #rrggbb"
        ) from None
    return ConversionOptions(
        images=ImageOptions(
            max_edge=settings.max_edge,
            quality=settings.quality,
            color_space=settings.color_space,
            background=background,
            max_pixels=int(settings.max_megapixels * 1e6),
        ),
        num_shards=settings.num_shards,
        num_workers=settings.num_workers or 0,
        random_seed=settings.random_seed,
        max_bad_fraction=settings.max_bad_fraction,
        seconds_per_image=settings.seconds_per_image,
    )


def split_name(settings):
    """Return the split's name: as said, or as the source's last word says."""
    from library.dataset.sources.base import SPLITS

    if settings.source and settings.tfrecord_filename == "validation":
        raise SettingsError(
            f"source: {settings.source} has train and test only: divide train with "
            "--split validation=0.1"
        )
    if settings.tfrecord_filename is not None:
        if "/" in settings.tfrecord_filename or settings.tfrecord_filename.startswith("."):
            raise SettingsError(
                f"tfrecord_filename: {settings.tfrecord_filename!r} is no name for a file; "
                "the folder goes into tfrecord_dir"
            )
        return settings.tfrecord_filename
    if not (settings.dataset_dir or settings.source or settings.tfrecord_dir):
        raise SettingsError("dataset_dir is missing: say which images, such as dataset/train")
    images = Path(settings.dataset_dir or "")
    if images.name in SPLITS:
        return images.name
    for split in SPLITS:
        if settings.dataset_dir and (images / split).is_dir():
            raise SettingsError(
                f"dataset_dir: {images} holds splits; convert one at a time, such as "
                f"{images / split}"
            )
    raise SettingsError(
        "tfrecord_filename is missing: the split's name, such as train; or let --split "
        "validation=0.1,test=0.1 divide the images"
    )


def shard_folder(settings):
    """Return the folder of the shards: as said, or that of the images."""
    if settings.tfrecord_dir is not None:
        return settings.tfrecord_dir
    if settings.dataset_dir is not None and Path(settings.dataset_dir).is_dir():
        return Path(settings.dataset_dir)
    if settings.dataset_dir and "://" not in settings.dataset_dir:
        images = Path(settings.dataset_dir)
        there = next(each for each in (images, *images.absolute().parents) if each.exists())
        # Else it is an archive or a table, or the images lie within one.
        if there.is_dir() and "*" not in images.name:
            raise DataError(f"there is no folder {images}: put images at {images}/<class>/<image>")
    raise SettingsError("tfrecord_dir is missing: the folder that the shards go to")


def result(manifest, base=None, at=None):
    """Return the line that says what was converted."""
    examples = manifest.examples - (base.examples if base else 0)
    left_out = manifest.rejected_count - (base.rejected_count if base else 0)
    size = sum(shard.bytes for shard in manifest.shards)
    words = counted(examples, "image")
    words += f" added, {manifest.examples:,} in all" if base else ""
    words += f" of {counted_classes(len(manifest.classes))} in "
    words += f"{counted(len(manifest.shards), 'shard')} ({size / 1e6:,.1f} MB)"
    if left_out:
        words += f"; {left_out:,} left out, see {manifest.name}.rejected.csv"
    return f"{at or manifest.folder}: {manifest.name} holds {words}"


def verify(settings):
    """Check a converted split, and say that nothing is wrong with it."""
    from library.dataset.splits import read_split
    from library.dataset.verification import verify as verify_split
    from library.dataset.worker_pool import available_cores

    manifest = read_split(shard_folder(settings), split_name(settings))
    verify_split(manifest, settings.num_workers or available_cores())
    copied = f"{manifest.origin}, as fetched to {manifest.folder}" if manifest.origin else None
    print(f"{result(manifest, at=copied)}: every hash, record and image is as it should be")


def inspect(settings):
    """Print what there is to know about the images, and write it with thumbnails as HTML."""
    from library.dataset.worker_pool import available_cores
    from library.describing.dataset_page import page
    from library.describing.dataset_summary import inspect_splits
    from library.describing.dataset_text import text
    from library.files import write_file

    options = conversion_options(settings)
    workers = settings.num_workers or available_cores()
    splits = {
        split: partial(find_source, each, split, settings.tfrecord_dir)
        for split, each in splits_of(settings).items()
    }
    with inspect_splits(splits, options.images, workers) as inspection:
        print(text(inspection))
        write_file(settings.report, page(inspection, options.images))
    print(f"with pictures: {settings.report}")


def splits_of(settings):
    """Give {split: settings} for each split in a folder or archive of splits, or for it alone."""
    from library.dataset.sources.base import SPLITS
    from library.dataset.sources.find import exists

    if settings.source or not settings.dataset_dir:
        return {settings.tfrecord_filename or "train": settings}
    inside = {split: f"{settings.dataset_dir.rstrip('/')}/{split}" for split in SPLITS}
    there = {split: path for split, path in inside.items() if exists(path)}
    if not there:
        there = {Path(settings.dataset_dir).name: settings.dataset_dir}
    return {split: settings.model_copy(update={"dataset_dir": at}) for split, at in there.items()}


def command():
    """Convert what the command line says. Give the exit code."""
    return run_main(main, sys.argv[1:], PROGRAM.name)


if __name__ == "__main__":
    sys.exit(command())
