"""The folds of a cross-validation: splits of which one validates and the others train, together."""

from dataclasses import dataclass
from pathlib import Path

from library.dataset.manifest import Manifest
from library.dataset.sources.base import FIRST_FOLD, TRAINING, fold_names
from library.dataset.splits import read_splits
from library.dataset.storage import is_remote
from library.errors import DataError, SettingsError
from library.messages import shown

# The settings of conversion that decide which image is in which fold.
_ASSIGNMENT = ("split", "group_by", "random_seed")


@dataclass(frozen=True)
class JoinedSplit(Manifest):
    """Several splits as one, whose shards are those of all parts, in order.

    Attributes:
        parts: The splits, which agree about the classes.
    """

    parts: tuple[Manifest, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The shards' paths, in order."""
        return tuple(path for each in self.parts for path in each.paths)

    @property
    def manifest_paths(self) -> tuple[Path, ...]:
        """The paths of the parts' manifests."""
        return tuple(path for each in self.parts for path in each.manifest_paths)


def join_splits(parts: tuple[Manifest, ...], name: str) -> JoinedSplit:
    """Return splits of the same classes as one of the name `name`."""
    first = parts[0]
    return JoinedSplit(
        folder=first.folder.parent,
        name=name,
        classes=first.classes,
        class_counts=tuple(map(sum, zip(*(each.class_counts for each in parts), strict=True))),
        shards=tuple(shard for each in parts for shard in each.shards),
        settings=first.settings,
        rejected=tuple(rejected for each in parts for rejected in each.rejected),
        rejected_count=sum(each.rejected_count for each in parts),
        is_multi_label=first.is_multi_label,
        origin=first.origin,
        parts=parts,
    )


def find_folds(data_dir: str | Path) -> tuple[str, ...]:
    """Return the names of the folds in a local folder, however they were made; none of a URL."""
    if is_remote(data_dir):
        return ()
    names = fold_names(sum(1 for _ in Path(data_dir).glob("fold_*/fold_*.manifest.json")))
    return tuple(each for each in names if Path(data_dir, each).is_dir())


def read_folds(data_dir: str, fetch: bool = True) -> list[Manifest]:
    """Return the folds in a folder or at a URL, in order, as one --split made them.

    Args:
        data_dir: The folder, or its URL.
        fetch: Whether to download what is at a URL.

    Raises:
        DataError: There are none, or one is missing, or was made by another --split.
        UserError: Shards can't be downloaded.
    """
    if not is_remote(data_dir) and not find_folds(data_dir):
        raise DataError(
            f"{data_dir} has no folds; to make them: python convert_dataset.py --dataset_dir "
            f"IMAGES --split folds=5 --tfrecord_dir {data_dir}"
        )
    first = read_splits(data_dir, FIRST_FOLD, fetch=fetch)[0]
    # Folds that were converted one by one, such as the sets of a CSV file, don't tell their number.
    recorded = str(first.settings.get("split", "")).partition(",")[0].removeprefix("folds=")
    names = fold_names(int(recorded)) if recorded.isdigit() else find_folds(data_dir)
    folds = read_splits(data_dir, *names, fetch=fetch)
    for fold in folds:
        for key in _ASSIGNMENT:
            if (value := fold.settings.get(key)) != (expected := first.settings.get(key)):
                raise DataError(
                    f"{FIRST_FOLD} in {data_dir} was made with {key} {shown(expected)}, and "
                    f"{fold.name} with {shown(value)}: convert all again, with the same --split"
                )
    if len(folds) < 2:
        raise DataError(f"{data_dir} has one fold, and cross-validation needs two or more")
    return folds


def read_fold_splits(data_dir: str, fold: int, fetch: bool = True) -> dict[str, Manifest]:
    """Return {"train": all other folds as one split, "validation": the fold}.

    Args:
        data_dir: Folder or URL of the folds.
        fold: The fold's number, from 1.
        fetch: Whether to download what is at a URL.

    Raises:
        DataError: There are no folds, or they don't belong together.
        SettingsError: There is no such fold.
        UserError: Shards can't be downloaded.
    """
    folds = read_folds(data_dir, fetch)
    if fold > len(folds):
        raise SettingsError(f"unknown fold {fold}: the folds in {data_dir} are 1 to {len(folds)}")
    others = (*folds[: fold - 1], *folds[fold:])
    return {
        TRAINING: join_splits(others, TRAINING),
        "validation": join_splits((folds[fold - 1],), "validation"),
    }
