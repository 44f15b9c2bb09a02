"""The command export."""

import json
from pathlib import Path

from library.counted import counted
from library.errors import SettingsError
from project.commands.beginning import read_data, read_validation, start_tensorflow


def export(settings):
    """Make of the snapshot what runs elsewhere, and compare each with it before it is there."""
    project = settings.project
    if Path(project.export_name).name != project.export_name:
        raise SettingsError(f"export_name {project.export_name!r} is no name for a folder")
    compared, train_split = read_data(project, "validation", "train")
    validation_split = read_validation(project)
    start_tensorflow(project)
    from library.shipping.exporting import check_formats
    from library.shipping.exporting import export as export_all
    from library.training.history import report
    from project import stored_network

    check_formats(project.export_formats, embedding=project.embedding)
    snapshot = stored_network.read_network(settings)
    fitted = stored_network.fit_to_validation(settings, snapshot, validation_split)
    samples = stored_network.make_samples(settings, snapshot, compared, train_split)
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
