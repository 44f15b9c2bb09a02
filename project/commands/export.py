"""The command export."""

import json
import re
from pathlib import Path

from library.errors import SettingsError
from library.messages import counted
from project.commands.setup import (
    read_data,
    read_validation,
    refuse_without_effect,
    start_tensorflow,
)


def export(settings):
    """Make of the snapshot what runs elsewhere, and compare each with it before it is there."""
    project = settings.project
    refuse_without_effect(project, "export", "threshold", "threshold_precision")
    # The name is part of commands and addresses, too: of the card's, and of a server's.
    if not re.fullmatch(r"[A-Za-z0-9._-]+", project.export_name) or not project.export_name.strip(
        "."
    ):
        raise SettingsError(
            f"export_name {project.export_name!r} is no name for a folder: letters of a to z, "
            "digits, dots, dashes and underscores make one"
        )
    # Only integers are calibrated with training images.
    names = ("validation", "train") if "litert_int8" in project.export_formats else ("validation",)
    splits = read_data(project, *names)
    validation_split = read_validation(project)
    start_tensorflow(project)
    from library.export.exporting import check_formats
    from library.export.exporting import export as export_all
    from library.logging import report
    from project import load_network

    check_formats(project.export_formats, embedding=project.embedding)
    snapshot = load_network.read_chosen_snapshot(settings)
    fitted = load_network.fit_to_validation(settings, snapshot, validation_split)
    samples = load_network.make_samples(settings, snapshot, *splits)
    folder = Path(project.export_dir) / project.export_name
    path, figures = export_all(
        fitted.snapshot,
        folder,
        project.export_formats,
        samples,
        fitted.temperature,
        embedding=project.embedding,
    )
    for name, each in figures.items():
        report(
            f"{name}: probabilities within {each['difference']:.1e} of the snapshot's, the same "
            f"class for {each['agreement']:.1%} of "
            f"{counted(len(samples.pixels), f'{samples.split} image')}"
        )
    print(json.dumps({"export": str(path), "formats": figures}))
