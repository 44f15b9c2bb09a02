"""The command `describe`."""

import logging
from pathlib import Path

from library.configuration.reader import Settings
from library.files import current_folder
from library.messages import counted_classes
from project.commands.setup import follow_run, read_data, start_tensorflow

logger = logging.getLogger(__name__)


def describe(settings: Settings) -> None:
    """Print the network as a table with its costs per image, and draw it."""
    settings, folder = follow_run(settings)
    config, hparams = settings.project, settings.hyperparameters
    is_stored = folder == Path(config.run_dir) and current_folder(config.best_model_dir).is_dir()
    is_stored = is_stored or bool(config.checkpoint)
    splits = () if is_stored else read_data(config, "train")
    start_tensorflow(config)
    from library.describing.network_summary import draw_network, summarize_network
    from library.files import write_file
    from library.models.hub_download import hash_module, resolve_module
    from project import assembly, load_network

    if is_stored:
        snapshot = load_network.read_chosen_snapshot(settings)
        network, classes = snapshot.network, snapshot.classes
        head_rate = hparams.head_learning_rate
        logger.info(f"the network in {snapshot.folder}")
    else:
        classes = splits[0].classes
        parts = assembly.make_parts(settings, splits[0], batches_per_epoch=1)
        network, head_rate = parts.network, parts.head_learning_rate
    summary = summarize_network(network, (1, min(32, config.eval_batch_size)))
    for line in summary.lines():
        print(line)
    of_head = f", {head_rate:g} for the head" if head_rate else ""
    print(f"learning rate: {hparams.learning_rate:g}{of_head}")
    if hparams.model == "hub":
        print(f"hub_sha256: {hash_module(resolve_module(hparams.hub_handle))}")
    diagram = folder / "network.svg"
    title = f"{network.name}, {counted_classes(len(classes))}"
    write_file(diagram, draw_network(summary, title))
    logger.info("diagram: %s", diagram)
