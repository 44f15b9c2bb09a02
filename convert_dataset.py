"""The command line of conversion: labeled images → TFRecord shards. TensorFlow is not needed."""

import errno
import glob
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from library.errors import DataError, SettingsError, UserError, missing_package, run_main
from library.messages import counted, counted_present, listed

try:
    from pydantic import Field

    from library.configuration.command_line import Command, Program, program_name
    from library.configuration.reader import read_options
    from library.configuration.schema import (
        Count,
        CountOrZero,
        FractionBelowOne,
        Keys,
        LocalPath,
        PathOrUrl,
        Positive,
        Text,
        Words,
        key,
    )
    from library.dataset.options import ConversionOptions, ImageOptions
except ModuleNotFoundError as error:  # The wrong Python: most likely, .venv is not active.
    sys.exit(f"convert_dataset.py: error: {missing_package(error) or error}")

if TYPE_CHECKING:
    from library.beam.conversion import BeamEngine
    from library.dataset.conversion import Source
    from library.dataset.corrections import Corrections
    from library.dataset.manifest import Manifest
    from library.dataset.split_assignment import Splitter

# Not __name__, which is __main__ for a script: the handler is that of the package `library`.
logger = logging.getLogger("library.convert_dataset")

_ABOUT = (
    "Convert labeled images, <dataset_dir>/<class>/<image>, to TFRecord shards. Run the same "
    "command again to resume a conversion that was stopped. Images are never changed; those that "
    "can't be used are skipped and listed in <name>.rejected.csv."
)
_COMMANDS = {
    "convert": Command("write shards and a manifest"),
    "inspect": Command(
        "summarize the images: counts, sizes, duplicates; as text and HTML",
        settings=("dataset_dir", "source", "follow_links", "max_edge", "num_workers", "report"),
    ),
}
PROGRAM = Program(
    program_name("convert-dataset", "convert_dataset.py"), _ABOUT, _COMMANDS, Path(__file__).parent
)
# Errors of a folder of images that may not be changed.
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_DEFAULTS = ConversionOptions()
_IMAGES = _DEFAULTS.images


class SourceKeys(Keys):
    """Which images to convert."""

    heading = "Source"
    dataset_dir: PathOrUrl | None = key(
        None,
        "folder of class folders, the same in a zip or tar (images.zip/train), a CSV file (or one "
        "of its splits: images.csv/train), a manifest, or *.tfrecord; at a URL (gs://…, s3://…): a "
        "folder, a CSV file, a manifest",
    )
    source: Literal["fashion_mnist", "cifar10", "cifar100", "mnist"] | None = key(
        None, "a dataset that Keras downloads, instead of dataset_dir"
    )
    csv_columns: Words = key(
        (), "a CSV file's columns of set, file and label, or of file and label"
    )
    label_separator: Text | None = key(
        None, "separator of several classes in a CSV cell, such as | in cat|dog; none: one class"
    )
    multi_label: bool = key(False, "records of TFRecord files may have several classes, or none")
    tfrecord_fields: Words = key(
        (), "fields of foreign TFRecords, such as image=img,label=y,text=none"
    )
    follow_links: bool = key(False, "follow links that lead out of the folder of images")
    classes_from: PathOrUrl | None = key(
        _DEFAULTS.classes_from,
        "manifest that fixes the classes; none: that of the training split beside this one",
    )
    class_order: Literal["code_point", "natural"] = key(
        "code_point", "order of the classes: as text, or numbers in their names by value"
    )
    corrections: LocalPath | None = key(
        None, "CSV file of images to relabel or drop, by name or content (docs/labels.md)"
    )


class DestinationKeys(Keys):
    """Where the shards go."""

    heading = "Destination"
    tfrecord_filename: Text | None = key(None, "name of the split; none: that in dataset_dir")
    tfrecord_dir: PathOrUrl | None = key(None, "folder of the shards; none: dataset_dir")
    num_shards: CountOrZero = key(_DEFAULTS.num_shards, "0: 8, or more of about 128 MiB each")
    random_seed: CountOrZero = key(_DEFAULTS.random_seed, "seed of the order, and of --split")
    overwrite: bool = key(
        _DEFAULTS.overwrite, "replace a converted split that was made with other settings"
    )
    split: Words = key(
        (),
        "divide the images: validation=0.1,test=0.1 (train gets the rest), or folds=5 or "
        "folds=5,test=0.1 for a cross-validation",
    )
    group_by: Text | None = key(None, "pattern; paths with the same match stay in one split")


class ImageKeys(Keys):
    """How the images are stored."""

    heading = "Images"
    max_edge: CountOrZero = key(_IMAGES.max_edge, "longest edge in pixels; 0: any")
    quality: Annotated[int, Field(ge=1, le=100)] = key(_IMAGES.quality, "JPEG quality")
    color_space: Literal["rgb", "gray"] = key(_IMAGES.color_space, "color space")
    chroma: Literal["auto", "420", "444"] = key(
        _IMAGES.chroma,
        "resolution of color: 444 full, for graphics and screenshots; 420 half; auto: full up to "
        "128 pixels",
    )
    background: Text = key("white", "color behind transparent pixels: a name, or #rrggbb")
    max_megapixels: Positive = key(_IMAGES.max_pixels / 1e6, "skip larger images undecoded")
    max_bad_fraction: FractionBelowOne = key(
        _DEFAULTS.max_bad_fraction, "largest share of unusable images"
    )


class ExecutionKeys(Keys):
    """How the conversion runs."""

    heading = "Execution"
    num_workers: Count | None = key(_DEFAULTS.num_workers, "worker processes; none: one per core")
    seconds_per_image: Positive = key(_DEFAULTS.seconds_per_image, "skip slower images")
    engine: Literal["local", "beam"] = key(
        "local", "what converts: this machine's cores, or workers of Apache Beam (docs/beam.md)"
    )
    beam_options: Text | None = key(
        None,
        "Beam's pipeline options, in quotes: '--runner=DataflowRunner …'",
        takes_options=True,
    )
    verify: bool = key(False, "only check a converted split: every hash, record and image")
    report: LocalPath = key("out/inspection.html", "HTML page that inspect writes")
    verbose: bool = key(False, "show the traceback of an error")


class Settings(SourceKeys, DestinationKeys, ImageKeys, ExecutionKeys):
    """All options."""


def main(arguments: Sequence[str]) -> None:
    """Run the command that the arguments name. Raises UserError."""
    options = read_options(Settings, arguments, PROGRAM)
    if options.answer is not None:  # --help
        print(options.answer)
        return
    settings = options.settings
    if settings.beam_options and settings.engine != "beam":
        raise SettingsError("beam_options: only --engine beam takes these")
    if options.command == "inspect" or settings.verify:
        try:
            inspect(settings) if options.command == "inspect" else verify(settings)
        except ModuleNotFoundError as error:  # library.describing may have been deleted.
            raise UserError(missing_package(error) or f"this needs {error.name}") from None
        return
    from library.dataset.corrections import Corrections

    corrections = Corrections(settings.corrections) if settings.corrections else None
    if settings.split:
        convert_splits(settings, corrections)
    else:
        name, folder = find_split_name(settings), find_shard_folder(settings)
        convert_one(settings, name, folder, corrections=corrections)


def convert_splits(settings: Settings, corrections: "Corrections | None" = None) -> None:
    """Divide one source into splits; the first, for training, fixes the classes of the others."""
    from library.dataset.folds import find_folds
    from library.dataset.manifest import find_manifest
    from library.dataset.sources.base import SPLITS
    from library.dataset.split_assignment import Splitter, read_fractions

    if settings.tfrecord_filename:
        raise SettingsError("split: can't be combined with tfrecord_filename")
    if settings.tfrecord_dir is None:
        raise SettingsError("split: tfrecord_dir is missing: the parent folder of the splits")
    fractions = read_fractions(settings.split)
    if settings.source and "test" in fractions:
        raise SettingsError(
            f"split: {settings.source} has its own test split: convert it, --tfrecord_filename test"
        )
    splitter = Splitter(fractions, settings.group_by, settings.random_seed)
    for split in fractions:
        folder = f"{settings.tfrecord_dir}/{split}"
        convert_one(settings, split, folder, splitter, corrections)
        if split == splitter.first and splitter.moved:
            images = counted(len(splitter.moved), "image was", "images were")
            logger.info(
                f"{images} moved to {split}, which had none of the same class: "
                f"{listed(sorted(splitter.moved))}"
            )
    for split in sorted({*SPLITS, *find_folds(settings.tfrecord_dir)} - set(fractions)):
        folder = f"{settings.tfrecord_dir}/{split}"
        left = find_manifest(folder, split)
        if left and left.settings.get("split"):
            logger.warning(
                f"{folder}: {split} stays as an earlier --split made it, so its images may be in "
                "the other splits, too: remove it, or name it in --split"
            )


def convert_one(
    settings: Settings,
    name: str,
    folder: Path | str,
    splitter: "Splitter | None" = None,
    corrections: "Corrections | None" = None,
) -> None:
    """Convert one split.

    Args:
        settings: All options.
        name: The split's name.
        folder: A folder or URL, where the shards go.
        splitter: Selects the split's files; None: all files.
        corrections: Corrects labels; None: they stay.
    """
    from library.dataset import remote_splits
    from library.dataset.conversion import check_replacement, convert
    from library.dataset.storage import is_remote, local_folder

    local, url, previous = Path(folder), None, None
    if is_remote(folder):
        url = str(folder)
        local = local_folder(url)
        remote_splits.fetch_training_manifest(url, local)
        previous = remote_splits.find_remote_manifest(url, name)
    source = make_source(settings, name, local, splitter, corrections)
    options = make_conversion_options(settings)
    if previous:
        check_replacement(previous, source, options)
    engine = make_beam_engine(settings, url) if settings.engine == "beam" else None
    try:
        manifest = convert(source, local, name, options, engine)
    except UserError as error:
        if settings.tfrecord_dir is None and getattr(error.__cause__, "errno", 0) in _READ_ONLY:
            raise UserError(f"{error}, or with another --tfrecord_dir") from error
        raise
    if url:
        engine.upload(manifest) if engine else remote_splits.upload(manifest, url)
    print(f"{folder}: {name}: wrote {describe(manifest)}")
    if url:
        shutil.rmtree(local.parent)


def make_beam_engine(settings: Settings, url: str | None) -> "BeamEngine":
    """Return what converts on Beam, into a local folder or a URL. Raise SettingsError."""
    try:
        from library.beam.pipeline import import_beam

        import_beam()
        from library.beam.conversion import BeamEngine
    except ModuleNotFoundError as error:  # library.beam may have been deleted.
        raise SettingsError(missing_package(error) or f"engine: beam needs {error.name}") from None
    return BeamEngine(settings.beam_options or "", url)


def make_source(
    settings: Settings,
    split: str,
    shard_folder: Path | str | None,
    splitter: "Splitter | None" = None,
    corrections: "Corrections | None" = None,
) -> "Source":
    """Return the files that the settings name.

    Args:
        settings: All options.
        split: The split's name.
        shard_folder: A folder that is not searched for images.
        splitter: Selects the split's files; None: all files.
        corrections: Corrects labels; None: they stay.
    """
    from library.dataset.conversion import Source
    from library.dataset.sources.find import SourceOptions

    path = settings.source or settings.dataset_dir
    if path is None:
        raise SettingsError("dataset_dir is missing: the images, such as dataset/train")
    options = SourceOptions(
        exclude=shard_folder,
        columns=settings.csv_columns,
        label_separator=settings.label_separator or "",
        follow_links=settings.follow_links,
        tfrecord_fields=settings.tfrecord_fields,
        is_multi_label=settings.multi_label,
    )
    is_keras = settings.source is not None
    return Source(path, split, options, is_keras, splitter, corrections)


def make_conversion_options(settings: Settings) -> ConversionOptions:
    """Return the ConversionOptions that the settings ask for."""
    from PIL import ImageColor

    try:
        background = ImageColor.getrgb(settings.background)[:3]
    except ValueError:
        raise SettingsError(
            f"background: {settings.background!r} is not a color; write a name, or #rrggbb"
        ) from None
    max_pixels = int(settings.max_megapixels * 1e6)
    images = _take(ImageOptions, settings, background=background, max_pixels=max_pixels)
    return _take(ConversionOptions, settings, images=images)


def _take(kind: type, settings: Settings, **others: object) -> Any:
    """Return a dataclass whose fields are the settings of the same names, and others."""
    names = {each.name for each in fields(kind)} - others.keys()
    return kind(**{name: getattr(settings, name) for name in names}, **others)


def find_split_name(settings: Settings) -> str:
    """Return the split's name: tfrecord_filename, or the last folder of dataset_dir."""
    from library.dataset.sources.base import SPLITS, split_meant
    from library.dataset.sources.find import find_split_folders

    if settings.source and settings.tfrecord_filename == "validation":
        raise SettingsError(f"source: {settings.source} has no validation; use --split validation")
    if (name := settings.tfrecord_filename) is not None:
        if "/" in name or name.startswith("."):
            raise SettingsError(f"tfrecord_filename: {name!r} is not a name; use tfrecord_dir")
        return name
    images = Path(settings.dataset_dir or "")
    if images.name in SPLITS:
        return images.name
    options = make_source(settings, "", None).options
    if settings.dataset_dir and (folders := find_split_folders(settings.dataset_dir, options)):
        first = next(iter(folders.values()))
        raise SettingsError(f"dataset_dir: {images} has splits; convert each, such as {first}")
    example = split_meant(images.name) or "train"
    raise SettingsError(
        f"tfrecord_filename is missing: the split's name, such as {example}; or divide the "
        "images with --split validation=0.1,test=0.1"
    )


def find_shard_folder(settings: Settings) -> Path | str:
    """Return the folder of the shards: tfrecord_dir, or dataset_dir if that is a folder."""
    if settings.tfrecord_dir is not None:
        return settings.tfrecord_dir
    images = Path(settings.dataset_dir or ".")
    if settings.dataset_dir and images.is_dir():
        return images
    if settings.dataset_dir and "://" not in settings.dataset_dir:
        existing = next(each for each in (images, *images.absolute().parents) if each.exists())
        # Else it is an archive or a table, or the images lie within one.
        if existing.is_dir() and not glob.has_magic(images.name):
            raise DataError(f"there is no folder {images}; put images at {images}/<class>/<image>")
    raise SettingsError("tfrecord_dir is missing: the folder of the shards")


def describe(manifest: "Manifest") -> str:
    """Return what a manifest has: images, classes, shards, size, rejected files."""
    images = counted(manifest.examples, "image")
    size = sum(shard.bytes for shard in manifest.shards)
    counts = dict(zip(manifest.classes, manifest.class_counts, strict=True))
    text = f"{images} of {counted_present(counts)}{'' if all(counts.values()) else ';'} in "
    text += f"{counted(len(manifest.shards), 'shard')} ({size / 1e6:,.1f} MB)"
    if manifest.rejected_count:
        text += f"; skipped {manifest.rejected_count:,} (see {manifest.name}.rejected.csv)"
    return text


def verify(settings: Settings) -> None:
    """Check every hash, record and image of a converted split."""
    from library.dataset.splits import read_split
    from library.dataset.worker_pool import available_cores
    from library.describing.verification import verify as verify_split

    manifest = read_split(find_shard_folder(settings), find_split_name(settings))
    verify_split(manifest, settings.num_workers or available_cores())
    origin = f"{manifest.origin}, downloaded to " if manifest.origin else ""
    text = f"verified every hash, record and image of {describe(manifest)}"
    print(f"{origin}{manifest.folder}: {manifest.name}: {text}")


def inspect(settings: Settings) -> None:
    """Print a summary of the images, and write it with thumbnails as HTML."""
    from library.dataset.worker_pool import available_cores
    from library.describing.dataset_page import render_dataset_page
    from library.describing.dataset_summary import format_summary, inspect_splits
    from library.files import write_file

    images = make_conversion_options(settings).images
    sources = {
        split: make_source(each, split, settings.tfrecord_dir)
        for split, each in find_splits(settings).items()
    }
    workers = settings.num_workers or available_cores()
    with inspect_splits(sources, images, workers) as inspection:
        print(format_summary(inspection))
        write_file(settings.report, render_dataset_page(inspection, images))
    print(f"HTML report: {settings.report}")


def find_splits(settings: Settings) -> Mapping[str, Settings]:
    """Return settings for each split in a folder or archive of splits, or for it alone."""
    from library.dataset.sources.find import find_split_folders

    if settings.source or not settings.dataset_dir:
        return {settings.tfrecord_filename or "train": settings}
    options = make_source(settings, "", None).options
    paths = find_split_folders(settings.dataset_dir.rstrip("/"), options)
    if not paths:
        paths = {Path(settings.dataset_dir).name: settings.dataset_dir}
    return {
        split: settings.model_copy(update={"dataset_dir": path}) for split, path in paths.items()
    }


def command() -> int:
    """Run what the command line asks for, and return the exit code."""
    return run_main(main, sys.argv[1:], PROGRAM.name)


if __name__ == "__main__":
    sys.exit(command())
