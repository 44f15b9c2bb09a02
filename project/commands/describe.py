"""The command `describe`."""

import logging
from pathlib import Path

from library.configuration.reader import Settings
from library.messages import counted_classes
from project.commands.setup import read_data, start_tensorflow

logger = logging.getLogger(__name__)


def describe(settings: Settings) -> None:
    """Print the network as a table with its costs per image, and draw it."""
    config, hparams = settings.project, settings.hyperparameters
    (split,) = read_data(config, "train")
    start_tensorflow(config)
    from library.describing.network_summary import draw_network, summarize_network
    from library.files import write_file
    from library.models.hub_download import hash_module, resolve_module
    from project import assembly

    network = assembly.make_parts(settings, split, batches_per_epoch=1).network
    summary = summarize_network(network, (1, min(32, config.eval_batch_size)))
    for line in summary.lines():
        print(line)
    if hparams.model == "hub":
        print(f"hub_sha256: {hash_module(resolve_module(hparams.hub_handle))}")
    diagram = Path(config.run_dir) / "network.svg"
    title = f"{network.name}, {counted_classes(len(split.classes))}"
    write_file(diagram, draw_network(summary, title))
    logger.info("diagram: %s", diagram)
