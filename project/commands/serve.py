"""The command `serve`."""

import logging
from typing import Any

from project.commands.setup import read_validation, start_tensorflow

logger = logging.getLogger(__name__)


def serve(settings: Any) -> None:
    """Serve a local web page and a JSON endpoint."""
    config = settings.project
    from library.serving import server

    server.check_packages()
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
            snapshot, config.max_megapixels, calibrated.threshold, calibrated.temperature
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
