"""The command `serve`."""

import logging
from pathlib import Path
from typing import Any

from library.errors import SettingsError, UserError
from library.messages import counted
from project.commands.setup import read_validation, start_tensorflow

logger = logging.getLogger(__name__)


def serve(settings: Any) -> None:
    """Serve a local web page and a JSON endpoint."""
    config = settings.project
    from library.serving import server

    server.check_packages()
    if config.clean:
        serve_review(config)
        return
    with server.open_socket(config.host, config.port) as listening:
        validation_split = read_validation(config)
        start_tensorflow(config)
        from library.serving.application import make_application
        from library.serving.model import ServedModel
        from library.serving.uploads import RequestLimits
        from project import load_network

        snapshot = load_network.read_chosen_snapshot(settings)
        calibrated = load_network.fit_to_validation(settings, snapshot, validation_split)
        limits = RequestLimits(
            upload_megabytes=config.max_upload_megabytes,
            upload_seconds=config.max_upload_secs,
            waiting=config.max_waiting,
        )
        # The snapshot as it is on disk: a temperature does not change heat maps, and layers of a
        # calibrated network are harder to reach.
        with ServedModel(
            snapshot,
            config.max_megapixels,
            calibrated.threshold,
            calibrated.temperature,
            calibrated.detector,
        ) as model:
            hosts = server.allowed_hosts(config.host)
            application = make_application(model, limits, hosts)
            if not server.is_loopback(config.host):
                logger.warning(
                    f"anyone who can reach {config.host} can use this server; there is no password"
                )
            logger.info(f"serving {model.description}; press Ctrl-C to stop")
            print(server.socket_url(listening), flush=True)
            server.serve_forever(application, listening)


def serve_review(config: Any) -> None:
    """Serve the page where a person decides about the images that `clean` found."""
    from library.serving import server
    from library.serving.review import make_review_application

    try:
        from library.cleaning.decisions import Review
        from library.cleaning.suspects import CLEANING_FOLDER
    except ModuleNotFoundError as error:  # It may have been deleted.
        raise UserError(f"--clean needs {error.name}") from None
    if not server.is_loopback(config.host):
        raise SettingsError(
            f"host: {config.host} is reachable from other machines, and --clean lets everyone who "
            "reaches it write corrections: use 127.0.0.1, through an SSH tunnel from elsewhere"
        )
    review = Review(Path(config.run_dir, CLEANING_FOLDER))
    with server.open_socket(config.host, config.port) as listening:
        application = make_review_application(review, server.allowed_hosts(config.host))
        logger.info(
            f"serving {counted(review.count, 'suspicious label')} of {config.run_dir}; decisions "
            f"are saved to {review.path}; press Ctrl-C to stop"
        )
        print(server.socket_url(listening), flush=True)
        server.serve_forever(application, listening)
