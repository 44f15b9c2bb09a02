"""The command preview."""

from project.commands.setup import read_data, start_tensorflow


def preview(settings):
    """Draw a batch of training images as the network sees them, as PNG and in TensorBoard."""
    project = settings.project
    (train_split,) = read_data(project, "train")
    start_tensorflow(project)
    from library.figures.contact_sheet import write_preview
    from library.inputs.corruption import explain_read_errors
    from library.logging import report
    from project import assembly

    assembly.seed_everything(settings)
    training = assembly.make_training_inputs(settings, train_split)
    with explain_read_errors(training):
        path = write_preview(training, train_split.classes, project.run_dir)
    report(f"in TensorBoard too: tensorboard --logdir {project.run_dir}")
    print(path)
