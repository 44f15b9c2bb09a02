"""The command predict."""

from contextlib import closing

from library.errors import DataError, SettingsError, printable
from library.messages import counted
from project.commands.setup import read_validation, start_tensorflow


def predict(settings):
    """Say what images show; tell which of them can't be read, and go on."""
    project = settings.project
    if not settings.paths:
        raise SettingsError("predict lacks its paths: python run.py predict IMAGE-OR-FOLDER…")
    from library.prediction.image_paths import find_images

    files = find_images(settings.paths)
    validation_split = read_validation(project)
    from library.dataset.image_pool import ImagePool

    # First of all: while TensorFlow is imported, a process for decoders gets ready, too.
    with ImagePool() as converters:
        start_tensorflow(project)
        counts = _predict(settings, files, validation_split, converters.convert)
    if not counts["predicted"]:
        raise DataError("none of the files could be predicted")


def _predict(settings, files, validation_split, convert):
    """Print the answers, and report what can't be read. Give how many there are of both."""
    project = settings.project
    from library.logging import report
    from library.prediction.output import Answers
    from library.prediction.predictor import Predictor
    from library.prediction.preprocess import Pictures, predict_files
    from project import load_network

    snapshot = load_network.read_chosen_snapshot(settings)
    snapshot, _, threshold = load_network.fit_to_validation(settings, snapshot, validation_split)
    predictor = Predictor([snapshot], embedding=project.embedding, xla=project.xla)
    answers = Answers(
        snapshot.classes,
        project.predict_format,
        project.top_k,
        threshold,
        predictor.multi_label,
        predictor.embedding_size,
    )
    for line in answers.header():
        print(line)
    counts = {"predicted": 0, "unreadable": 0}
    pictures = Pictures.of(snapshot, convert)
    predictions = predict_files(files, pictures, predictor, project.eval_batch_size)
    # Whatever ends this, the threads end with it.
    with closing(predictions):
        for prediction in predictions:
            print(answers.line(prediction))
            counts["unreadable" if prediction.reason else "predicted"] += 1
            if prediction.reason:
                report(f"{printable(prediction.name)} {prediction.reason}")
    predicted = counted(counts["predicted"], "image")
    report(f"{predicted} predicted, {counts['unreadable']:,} unreadable")
    return counts
