"""The command explain."""

import json
from pathlib import Path

from library.errors import CheckpointError, DataError
from project.commands.setup import read_data, refuse_without_effect, start_tensorflow


def explain(settings):
    """Draw why a network answers as it does, about given images or some of a split's."""
    project = settings.project
    names = ("threshold", "threshold_precision", "calibrate")
    refuse_without_effect(project, "explain", *names)
    from library.prediction.image_paths import find_images

    files = find_images(settings.paths) if settings.paths else None
    start_tensorflow(project)
    from library.dataset.image_pool import ImagePool
    from library.explaining.explanation import choose_pictures, explain_pictures, read_pictures
    from library.explaining.explanation_files import summarize, write_explanation
    from library.inputs.corruption import explain_read_errors
    from library.logging import report
    from library.prediction.preprocess import ImagePreprocessor
    from project import load_network

    snapshot = load_network.read_chosen_snapshot(settings)

    def inputs_of(name):
        return load_network.make_inputs_for(snapshot, settings, *read_data(project, name))

    count, training = project.explain_images, None
    if files:
        with ImagePool(1) as converters:
            prepare = ImagePreprocessor.for_snapshot(snapshot, converters.convert).preprocess
            pictures = read_pictures(files, prepare, count, report)
    else:
        inputs = inputs_of(project.split)
        with explain_read_errors(inputs):
            pictures = choose_pictures(inputs, snapshot.classes, count)
    if project.explain_neighbors:
        try:
            training = inputs_of("train")
        except (DataError, CheckpointError) as error:
            report(f"without the nearest training images: {error}")
    with explain_read_errors(*filter(None, [training])):
        explanation = explain_pictures(
            snapshot.network,
            snapshot.classes,
            pictures,
            training,
            nearest=project.explain_neighbors,
            layer=project.explain_layer,
        )
    subject = f"{snapshot.network.name} in {snapshot.folder}"
    page = write_explanation(explanation, Path(project.run_dir) / "explain", subject)
    report(f"heat by {explanation.method}; open {page} in a browser")
    print(json.dumps({"page": str(page), **summarize(explanation)}))
