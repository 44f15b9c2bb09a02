"""The model card of an export, as Markdown: what it is, how accurate, and how to use it."""

from pathlib import Path

from library.export.bytes_to_pixels import LIMITATIONS
from library.export.formats import FORMATS
from library.export.verification import Comparison, ExportSamples
from library.figures.html import render
from library.messages import counted, counted_classes
from library.models.scores import is_multi_label
from library.prediction.calibrate import CalibratedSnapshot

_MAX_CLASSES = 20


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
        multi_label=is_multi_label(snapshot.network),
        members=members,
        # Members that learned from the same images are described once.
        data=members if len(fingerprints) > 1 else members[:1],
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
