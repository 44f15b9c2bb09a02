"""The command describe."""

from pathlib import Path

from library.messages import counted_classes
from project.commands.setup import read_data, start_tensorflow


def describe(settings):
    """Show the network as a table and a picture, and what it costs for an image here."""
    project, learn = settings.project, settings.hyperparameters
    (train_split,) = read_data(project, "train")
    start_tensorflow(project)
    from library.describing.network_diagram import draw_network
    from library.describing.network_summary import describe_network
    from library.files import write_file
    from library.logging import report
    from library.models.hub_download import hash_module, resolve_module
    from project import assembly

    network = assembly.make_parts(settings, train_split, batches_per_epoch=1).network
    description = describe_network(network, (1, min(32, project.eval_batch_size)))
    for line in description.lines():
        print(line)
    if learn.model == "hub":
        print(f"hub_sha256: {hash_module(resolve_module(learn.hub_handle))}")
    picture = Path(project.run_dir) / "network.svg"
    title = f"{network.name}, {counted_classes(len(train_split.classes))}"
    write_file(picture, draw_network(description, title))
    report(f"picture: {picture}")
