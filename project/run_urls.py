"""Runs at URLs: a command works on local copies of what settings name by s3://, gs://, ….

What a training writes is uploaded beside it, and what another command adds, such as the results of
`evaluate`, at its end: see library/remote_runs and docs/buckets.md.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from library.configuration.paths import is_url
from library.configuration.reader import Settings
from library.configuration.schema import Value
from library.errors import SettingsError

# In this order, so that what is captured of the best snapshot is never older than the checkpoint.
_WRITTEN = ("model_dir", "run_dir", "best_model_dir", "export_dir")
# Commands that write checkpoints, and that build a network.
_TRAINING = ("train", "cross_validate", "search")
_BUILDING = (*_TRAINING, "describe", "find_learning_rate", "profile")


@contextlib.contextmanager
def local_copies(settings: Settings, command: str) -> Iterator[Settings]:
    """Yield the settings with local copies for URLs; upload at the end what is new in them.

    Args:
        settings: The settings.
        command: The command that works on the copies.

    Raises:
        CheckpointError: What is at a URL is damaged.
        UnreachableError: A store does not answer.
        UserError: Another machine writes there, or something could not be uploaded.
    """
    is_training = command in _TRAINING
    written = _find_urls(settings, _WRITTEN[:3] if is_training else _WRITTEN)
    read = _find_urls(settings, () if is_training else ("checkpoint",))
    read |= _find_urls(settings, ("checkpoint_path",) if command in _BUILDING else ())
    paths = filter(is_url, settings.paths if command == "compare" else ())
    urls = {**written, **read, **{path: path for path in paths}}
    if not urls:
        yield settings
        return
    try:
        from library.remote_runs.fetching import fetch
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library.remote_runs"):
            raise
        name, url = next(iter(urls.items()))
        raise SettingsError(
            f"{name} must be a local path, not {url}, because library/remote_runs was deleted"
        ) from None
    local = {name: str(fetch(url)) for name, url in urls.items() if name not in written}
    use = _training_copies if is_training and not settings.dry_run else _command_copies
    with use(settings, written) as copies:
        yield _replaced(settings, urls, {**copies, **local})


def _find_urls(settings: Settings, names: Sequence[str]) -> dict[str, str]:
    """Return setting → URL of those settings that are URLs, without a slash at the end."""
    values = {name: settings.values[name].value for name in names}
    return {name: url.rstrip("/") for name, url in values.items() if url and is_url(url)}


def _replaced(settings: Settings, urls: Mapping[str, str], local: Mapping[str, str]) -> Settings:
    """Return the settings with local paths instead of URLs, by setting or argument."""
    values = {
        name: Value(local[name], settings.values[name].provenance)
        for name in local.keys() & settings.values.keys()
    }
    return replace(
        settings.with_values(values),
        paths=tuple(local.get(each, each) for each in settings.paths),
        urls={local[name]: url for name, url in urls.items()},
    )


@contextlib.contextmanager
def _command_copies(settings: Settings, urls: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield setting → copy to read; add to the bucket what the command wrote into it."""
    from library.remote_runs.fetching import add_changes, fetch_run
    from library.remote_runs.generations import RemoteFolder

    copies = {name: fetch_run(RemoteFolder(url)) for name, url in urls.items()}
    yield {name: str(copy.folder) for name, copy in copies.items()}
    for copy in copies.values() if not settings.dry_run else ():
        add_changes(copy)


@contextlib.contextmanager
def _training_copies(settings: Settings, urls: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield setting → copy to train in, uploaded from now on, if this process is the chief."""
    from library.remote_runs.fetching import fetch_run
    from library.remote_runs.generations import RemoteFolder
    from library.remote_runs.training_copies import training_copies
    from project.commands.train import find_cluster

    config, cluster = settings.project, find_cluster()
    if cluster and cluster.index:
        # The chief alone writes; the others resume from the same generation.
        fetched = {n: fetch_run(RemoteFolder(url), with_bulk=True) for n, url in urls.items()}
        yield {name: str(copy.folder) for name, copy in fetched.items()}
        return
    remotes = [RemoteFolder(url, config.keep_checkpoint_max) for url in urls.values()]
    options = {"starts_over": config.resume == "never", "is_cluster": cluster is not None}
    with training_copies(remotes, config.upload_wait_secs, **options) as folders:
        yield dict(zip(urls, map(str, folders), strict=True))
