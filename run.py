"""Train, evaluate: the command line, and the map of the house. `python run.py --help` tells more.

Each command is a few lines that name the rooms it goes through.
"""

import json
import sys
from pathlib import Path

from library.dataset.splits import read_splits
from library.errors import CheckpointError, DataError, SettingsError, answer, printable
from library.quiet_start import import_tensorflow
from library.training.cluster import read_cluster
from project.settings import read_settings


def main(arguments):
    """Run the command that the arguments name. Raises UserError."""
    settings = read_settings(arguments)
    if settings.answer:  # --help, --print_config, --list_sets
        print(settings.answer)
    else:
        is_validation = settings.command == "train" and settings.project.validate_only
        COMMANDS["evaluate" if is_validation else settings.command](settings)


def train(settings):
    """Train and keep the best snapshot; go on where an earlier run stopped."""
    project = settings.project
    cluster = read_cluster()
    train_split, validation_split = read_data(project, "train", "validation")
    start_tensorflow(project, cluster)
    from library.inputs.damage import naming_damage
    from library.training.debugging import OneBatch, check_learnt, checking_numbers
    from library.training.engines import train_and_evaluate
    from library.training.history import report
    from project import assembly
    from project.schedules import sketch

    classes = train_split.classes
    devices = assembly.start_devices(settings, cluster)
    training = assembly.make_training_inputs(settings, train_split, devices.part)
    validation = assembly.make_evaluation_inputs(settings, validation_split, part=devices.part)
    if project.debug:
        training = validation = OneBatch(training)
    assembly.seed_everything(settings)
    with devices.strategy.scope():
        parts = assembly.make_parts(settings, train_split, training.batches_per_epoch)
    if devices.is_chief:
        report(assembly.describe(parts, training, validation, classes, devices))
    if settings.dry_run:
        report(f"learning rate: {sketch(parts.learning_rate, parts.learning_rate.updates)}")
        report(assembly.check_one_batch(parts, training, validation))
        return
    plan, keeping = assembly.make_plan(settings), assembly.make_keeping(settings, train_split)
    kept = None
    if (
        devices.replicas == 1 and not project.debug
    ):  # Features are kept, and read, by one device alone.
        splits = (train_split, validation_split)
        kept = assembly.make_kept(settings, parts.network, training, validation, splits)
    with naming_damage(training, validation), checking_numbers(project.debug):
        best = train_and_evaluate(
            parts.network,
            (training, validation),
            parts.objective,
            parts.optimizer,
            plan,
            keeping,
            engine=project.engine,
            learning_rate=parts.learning_rate,
            averages=parts.averages,
            unfreezing=assembly.make_unfreezing(settings, parts.network),
            kept=kept,
            devices=devices,
            xla=project.xla,
        )
    if not devices.is_chief:
        return
    report(
        f"best snapshot: {project.best_model_dir}, epoch {best['epoch']}, validation loss "
        f"{best['value']:.4f}, accuracy {best['validation']['accuracy']:.4f}"
    )
    print(json.dumps({"snapshot": project.best_model_dir, **best}))
    if project.debug:
        report(check_learnt(best["validation"], training.examples))
    elif project.report:
        report_training(settings, (validation_split, train_split), validation)


def evaluate(settings):
    """Measure a stored network on a split: JSON for machines, a table and a page for people."""
    project = settings.project
    split_name = "validation" if project.validate_only else project.split
    (split,) = read_data(project, split_name)
    validation_split = split if split_name == "validation" else find_validation(project)
    start_tensorflow(project)
    from library.evaluation.judging import judge
    from library.evaluation.telling import tell_measures
    from library.inputs.damage import naming_damage
    from library.reporting.writing import EVALUATION, failing_softly, results_of, write_evaluation
    from library.training.history import report
    from project import assembly

    stored = assembly.read_network(settings)
    inputs = assembly.make_inputs_for(stored, settings, split)
    validation = inputs
    if validation_split is not split:
        validation = validation_split and assembly.make_inputs_for(
            stored, settings, validation_split
        )
    with naming_damage(*filter(None, (inputs, validation))):
        judgement = judge(
            stored.network,
            stored.classes,
            inputs,
            assembly.make_objective(settings, has_several=split.has_several),
            validation=validation,
            asked=assembly.make_asked(settings),
            max_steps=project.max_eval_steps,
            xla=project.xla,
        )
    for line in tell_measures(judgement.measures):
        report(line)
    results = results_of(stored, judgement, split_name)
    report(
        f"{split_name} accuracy {results['accuracy']:.4f}, loss {results['loss']:.4f}, "
        f"{results['images']:,} images; {'snapshot' if project.checkpoint else 'best snapshot'}: "
        f"{stored.folder}, epoch {results['epoch']}"
    )
    print(json.dumps(results, allow_nan=False))
    words = (split_name, *assembly.words_of_network(settings))
    stem = project.validation_name or "-".join(words)
    known = {each.name: each for each in (split, validation_split) if each}
    run_dir = None if project.checkpoint else project.run_dir
    with failing_softly("the report"):
        write_evaluation(
            Path(project.run_dir, EVALUATION, stem),
            stored,
            inputs,
            judgement,
            tuple(known.values()),
            run_dir=run_dir,
        )


def compare(settings):
    """Show runs side by side, and what differs in their settings: a table, a page, a summary."""
    from library.reporting.comparison import find_runs, tell_comparison, write_comparison

    runs, skipped, folder = find_runs(settings.paths, Path(settings.project.run_dir).parent)
    for line in skipped:
        print(line, file=sys.stderr)
    for line in tell_comparison(runs):
        print(line)
    page, summary = write_comparison(folder, runs, skipped)
    print(f"written: {page} and {summary}", file=sys.stderr)


def report_training(settings, splits, validation):
    """Write report.html about the best snapshot on the validation split, unless it is there."""
    from library.evaluation.judging import judge
    from library.reporting.writing import (
        EVALUATION,
        REPORT,
        failing_softly,
        is_current,
        write_evaluation,
    )
    from library.training.snapshots import read_snapshot
    from project import assembly

    project = settings.project
    folder, best = Path(project.run_dir), Path(project.best_model_dir)
    with failing_softly(folder / REPORT):
        if is_current(folder / REPORT, best / "metrics.json", folder / "history.csv"):
            return
        stored = read_snapshot(best)
        inputs = assembly.make_whole(validation)
        judgement = judge(
            stored.network,
            stored.classes,
            inputs,
            assembly.make_objective(settings, has_several=splits[0].has_several),
            validation=inputs,
            asked=assembly.make_asked(settings),
            max_steps=project.max_eval_steps,
        )
        stem, page = folder / EVALUATION / "validation", folder / REPORT
        write_evaluation(stem, stored, inputs, judgement, splits, page=page, run_dir=folder)


def predict(settings):
    """Say what images show; tell which of them can't be read, and go on."""
    project = settings.project
    if not settings.paths:
        raise SettingsError("predict lacks its paths: python run.py predict IMAGE-OR-FOLDER…")
    if None not in (project.threshold, project.threshold_precision):
        raise SettingsError("threshold and threshold_precision exclude each other")
    from library.prediction.finding import find_images

    files = find_images(settings.paths)
    validation_split = read_validation(project)
    start_tensorflow(project)
    from library.prediction.answers import Answers
    from library.prediction.pictures import Pictures
    from library.prediction.predictor import Predictor
    from library.prediction.stream import predict_files
    from library.training.history import report
    from project import assembly

    snapshot = assembly.read_network(settings)
    snapshot, _, threshold = assembly.fit_to_validation(settings, snapshot, validation_split)
    predictor = Predictor([snapshot], xla=project.xla)
    answers = Answers(
        snapshot.classes, project.predict_format, project.top_k, threshold, predictor.several
    )
    for line in answers.header():
        print(line)
    counts = {"predicted": 0, "unreadable": 0}
    pictures = Pictures.of(snapshot)
    for prediction in predict_files(files, pictures, predictor, project.eval_batch_size):
        print(answers.line(prediction))
        counts["unreadable" if prediction.reason else "predicted"] += 1
        if prediction.reason:
            report(f"{printable(prediction.name)} {prediction.reason}")
    report(f"{counts['predicted']:,} images predicted, {counts['unreadable']:,} unreadable")


def explain(settings):
    """Draw why a network answers as it does, about given images or some of a split's."""
    project = settings.project
    from library.prediction.finding import find_images

    files = find_images(settings.paths) if settings.paths else None
    start_tensorflow(project)
    from library.explaining.explanation import choose_pictures, explain_pictures
    from library.explaining.explanation_files import summarize, write_explanation
    from library.explaining.given_pictures import read_pictures
    from library.prediction.pictures import Pictures
    from library.training.history import report
    from project import assembly

    snapshot = assembly.read_network(settings)

    def inputs_of(name):
        return assembly.make_inputs_for(snapshot, settings, *read_data(project, name))

    count, training = project.explain_images, None
    if files:
        pictures = read_pictures(files, Pictures.of(snapshot).pixels, count, report)
    else:
        pictures = choose_pictures(inputs_of(project.split), snapshot.classes, count)
    if project.explain_neighbours:
        try:
            training = inputs_of("train")
        except (DataError, CheckpointError) as error:
            report(f"without the nearest training images: {error}")
    explanation = explain_pictures(
        snapshot.network,
        snapshot.classes,
        pictures,
        training,
        nearest=project.explain_neighbours,
        layer=project.explain_layer,
    )
    subject = f"{snapshot.network.name} in {snapshot.folder}"
    page = write_explanation(explanation, Path(project.run_dir) / "explain", subject)
    report(f"heat by {explanation.method}; open {page} in a browser")
    print(json.dumps({"page": str(page), **summarize(explanation)}))


def serve(settings):
    """Answer on a local page, and in JSON, what a network sees in an image."""
    project = settings.project
    from library.serving import server

    server.check_packages()
    with server.open_socket(project.host, project.port) as listening:
        start_tensorflow(project)
        from library.serving.application import make_application
        from library.serving.served_model import ServedModel
        from library.serving.turns import Turns
        from library.serving.uploads import Limits
        from library.training.history import report
        from project import assembly

        model = ServedModel(assembly.read_network(settings), project.max_megapixels)
        application = make_application(
            model,
            Limits(project.max_upload_megabytes, project.max_upload_secs),
            Turns(project.max_waiting),
            report,
            server.hosts_of(project.host),
        )
        if not server.is_loopback(project.host):
            report(f"warning: whoever reaches {project.host} may use it; it asks no password")
        report(f"serving {model.subject}; Ctrl-C ends it")
        print(server.url_of(listening), flush=True)
        server.serve_forever(application, listening)


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
    from project import assembly

    check_formats(project.export_formats)
    snapshot = assembly.read_network(settings)
    samples = assembly.make_samples(settings, snapshot, compared, train_split)
    fitted, temperature, _ = assembly.fit_to_validation(settings, snapshot, validation_split)
    folder = Path(project.export_dir) / project.export_name
    path, figures = export_all(fitted, folder, project.export_formats, samples, temperature)
    for name, each in figures.items():
        report(
            f"{name}: probabilities within {each['difference']:.1e} of the snapshot's, the same "
            f"class for {each['agreement']:.1%} of {len(samples.pixels)} {samples.split} images"
        )
    print(json.dumps({"export": str(path), "formats": figures}))


def preview(settings):
    """Draw a batch of training images as the network sees them, as PNG and in TensorBoard."""
    project = settings.project
    (train_split,) = read_data(project, "train")
    start_tensorflow(project)
    from library.inputs.damage import naming_damage
    from library.inputs.sheets import write_preview
    from library.training.history import report
    from project import assembly

    assembly.seed_everything(settings)
    training = assembly.make_training_inputs(settings, train_split)
    with naming_damage(training):
        path = write_preview(training, train_split.classes, project.run_dir)
    report(f"in TensorBoard too: tensorboard --logdir {project.run_dir}")
    print(path)


def benchmark_inputs(settings):
    """Measure the input pipeline, stage by stage, and say which one holds the rest back."""
    project = settings.project
    (train_split,) = read_data(project, "train")
    start_tensorflow(project)
    from library.inputs.damage import naming_damage
    from library.inputs.stages import measure_stages, tell_stages
    from library.training.history import report
    from project import assembly

    training = assembly.make_training_inputs(settings, train_split)
    with naming_damage(training):
        rates = measure_stages(training)
    for line in tell_stages(rates):
        report(line)
    print(json.dumps({"images_per_second": {name: round(rate) for name, rate in rates.items()}}))


def describe(settings):
    """Show the network as a table and a picture, and what it costs for an image here."""
    project, learn = settings.project, settings.hyperparameters
    (train_split,) = read_data(project, "train")
    start_tensorflow(project)
    from library.describing import describe_network
    from library.files import write_file
    from library.network_picture import draw_network
    from library.training.history import report
    from library.transfer.module_files import find_module, hash_module
    from project import assembly

    network = assembly.make_parts(settings, train_split, batches_per_epoch=1).network
    description = describe_network(network, (1, min(32, project.eval_batch_size)))
    for line in description.lines():
        print(line)
    if learn.model == "hub":
        print(f"hub_sha256: {hash_module(find_module(learn.hub_handle))}")
    picture = Path(project.run_dir) / "network.svg"
    write_file(
        picture, draw_network(description, f"{network.name}, {len(train_split.classes)} classes")
    )
    report(f"picture: {picture}")


COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "export": export,
    "describe": describe,
    "explain": explain,
    "preview": preview,
    "serve": serve,
    "benchmark_inputs": benchmark_inputs,
}


def start_tensorflow(project, cluster=None):
    """Import TensorFlow and start the devices that the settings choose.

    Where several workers train together, they are started together, later.
    """

    def choose():
        from library.training.distribution import choose_devices

        choose_devices(
            project.num_gpus,
            gpu_growth=project.gpu_growth,
            intra_op_threads=project.intra_op_threads,
            inter_op_threads=project.inter_op_threads,
        )
        return cluster is None

    import_tensorflow(project.verbose, choose)


def read_validation(project):
    """Give the validation split if a threshold or a temperature is to be fitted on it, or None."""
    if project.calibrate or project.threshold_precision is not None:
        return read_data(project, "validation")[0]
    return None


def find_validation(project):
    """Give the validation split, or None where there is none: only the temperature needs it."""
    try:
        (split,) = read_data(project, "validation")
    except DataError as error:
        print(f"no temperature without a validation split: {error}", file=sys.stderr)
        return None
    return split


def read_data(project, *names):
    """Give the splits, converted or not, in order. Raises DataError."""
    if project.data_format == "tfrecord":
        return read_splits(project.data_dir, *names)
    from library.dataset.unconverted import read_generated, read_unconverted
    from library.training.history import report

    if project.data_format == "generator":
        import_tensorflow(project.verbose, lambda: False)
        from project.inputs import generate_images

        splits = read_generated(generate_images, names)
    else:
        splits = read_unconverted(project.data_dir, names, project.data_format)
    report(splits[0].describe())
    return splits


def command():
    """Run what the command line says. Give the exit code."""
    return answer(main, sys.argv[1:], Path(sys.argv[0]).name)


if __name__ == "__main__":
    sys.exit(command())
