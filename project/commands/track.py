"""The command track."""

import logging
from pathlib import Path

from library.configuration.reader import Settings
from library.errors import DataError, UserError
from library.messages import counted

logger = logging.getLogger(__name__)


def track(settings: Settings) -> None:
    """Send to trackers what they have not got yet of runs, and of the runs in their folders."""
    from library.tracking.delivery import find_queues, send_rest, trackers_of
    from project.trackers import find_tracker

    paths = settings.paths or (settings.project.run_dir,)
    failed = 0
    for path in map(Path, paths):
        queues = list(find_queues(path))
        if not queues:
            raise DataError(f"{path} has no events for trackers: train with --trackers first")
        for queue in queues:
            for name in trackers_of(queue):
                sent, progress = send_rest(queue, name, find_tracker(name))
                run = queue.folder.parent
                if progress.error:
                    failed += 1
                    logger.warning(f"{run}: nothing could be sent to {name}: {progress.error}")
                else:
                    where = f": {progress.url}" if progress.url else ""
                    logger.info(f"{run}: sent {counted(sent, 'event')} to {name}{where}")
    if failed:
        raise UserError(f"{counted(failed, 'run')} could not be sent: start the same again later")
