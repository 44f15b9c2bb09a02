"""The model card of an export, as Markdown: what it is, how accurate, and how to use it."""

from collections.abc import Iterable
from pathlib import Path

from library.evaluation.evaluate import EVALUATION_FOLDER
from library.evaluation.table import format_interval, format_number, metric_label
from library.export.bytes_to_pixels import LIMITATIONS
from library.export.formats import FORMATS
from library.export.verification import Comparison, ExportSamples
from library.figures.html import render
from library.files import parse_json
from library.messages import counted, counted_classes
from library.models.scores import is_multi_label
from library.prediction.calibrate import CalibratedSnapshot
from library.saving.snapshots import Snapshot

_MAX_CLASSES = 20
_TEST_METRICS = ("exact_match", "accuracy", "top_k_accuracy", "macro_f1", "loss", "ece")


def make_model_card(
    calibrated: CalibratedSnapshot,
    path: Path,
    comparisons: dict[str, Comparison],
    samples: ExportSamples,
    *,
    embedding: bool = False,
) -> str:
    """Return the text of an export's README.md.

    Args:
        calibrated: The exported snapshot.
        path: The numbered folder that will hold the export.
        comparisons: Each exported format, compared with the snapshot.
        samples: The images that they were compared on.
        embedding: Whether the SavedModel returns embeddings.
    """
    snapshot = calibrated.snapshot
    members = snapshot.members or (snapshot,)
    fingerprints = {member.data.get("fingerprint") for member in members}
    changes = {
        "several networks": len(members) > 1,
        "test-time augmentation": snapshot.views > 1,
        "a temperature": calibrated.temperature is not None,
    }
    return render(
        "library.export",
        "model_card.md",
        name=path.parent.name,
        version=path.name,
        snapshot=snapshot,
        temperature=calibrated.temperature,
        detector=calibrated.detector,
        multi_label=is_multi_label(snapshot.network),
        members=members,
        tests=[(each, found) for each in members if (found := _test_figures(each, path.parents))],
        # Members that learned from the same images are described once.
        data=members if len(fingerprints) > 1 else members[:1],
        pretrained=dict(filter(None, map(_pretrained, members))),
        changes=[change for change, is_made in changes.items() if is_made],
        formats=FORMATS,
        comparisons=comparisons,
        samples=samples,
        embedding=embedding,
        limitations=LIMITATIONS,
        max_classes=_MAX_CLASSES,
        counted=counted,
        counted_classes=counted_classes,
    )


def _pretrained(snapshot: Snapshot) -> tuple[str, str] | None:
    """Return the source and the license of a snapshot's pretrained weights, if it records them."""
    found = snapshot.data.get("pretrained")
    if not isinstance(found, dict):
        return None
    return str(found.get("source")), str(found.get("license"))


def _test_figures(snapshot: Snapshot, folders: Iterable[Path]) -> dict | None:
    """Return what `evaluate` found on the whole test split for this very snapshot, or None.

    Args:
        snapshot: One snapshot, not an ensemble.
        folders: Where the run may be, besides around the snapshot.
    """
    for folder in (*snapshot.folder.parents[:2], *folders):
        path = folder / EVALUATION_FOLDER / "test.json"
        try:
            summary = parse_json(path.read_text(encoding="utf-8"))
            is_same = summary["snapshot_sha256"] == snapshot.sha256 != ""
            if is_same and summary["images"] == summary["images_in_split"]:
                return {
                    "images": summary["images"],
                    "rows": [
                        (
                            metric_label(name, summary["top_k"]),
                            format_number(summary[name]),
                            format_interval(summary["intervals"].get(name)),
                        )
                        for name in _TEST_METRICS
                        if name in summary
                    ],
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None
