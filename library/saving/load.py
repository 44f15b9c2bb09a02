"""A network as some run stored it: its best snapshot, another run's, or an earlier checkpoint."""

from dataclasses import replace
from pathlib import Path

from library.errors import CheckpointError
from library.files import find_damage
from library.saving.checkpoints import averaged_variables, read_state, read_variables
from library.saving.snapshots import has_snapshot, read_snapshot


def load_snapshot(where, best):
    """Return the Snapshot that `where` names; None means the one in `best`.

    `where` is the folder of a snapshot, of a run, or of a checkpoint (whose run's best snapshot
    says what network it is). Raises CheckpointError, one line.
    """
    if where is None:
        return read_snapshot(best)
    folder = Path(where)
    if not folder.exists() and not has_snapshot(folder):
        raise CheckpointError(
            f"there is no {folder}: a snapshot, a run or a checkpoint is a folder"
        )
    if (folder / "state.json").is_file():
        return _read_checkpoint(folder, best)
    if has_snapshot(folder / "best") and not (folder / "classes.json").is_file():
        folder = folder / "best"
    return read_snapshot(folder)


def _read_checkpoint(folder, best):
    """Return the best snapshot of the checkpoint's run with the checkpoint's weights."""
    if damage := find_damage(folder):
        raise CheckpointError(f"checkpoint {folder} is damaged ({damage}): name another one")
    state = read_state(folder)
    try:
        beside = folder.parent.parent / "best"
        snapshot = read_snapshot(beside if has_snapshot(beside) else best)
        if tuple(state["classes"]) != snapshot.classes:
            raise CheckpointError(f"{snapshot.folder} was made for other classes than {folder}")
        _read_weights(folder, snapshot.network, state.get("averages_at"))
        metrics = {"epoch": state["epoch"] + (state["batch"] > 0), "step": state["step"]}
    except KeyError as error:
        raise CheckpointError(f"{folder} is no checkpoint of this project: no {error}") from None
    return replace(snapshot, metrics=metrics, folder=folder)


def _read_weights(folder, network, averages_at):
    read_variables(folder, network.variables, start=0)
    if averages_at is not None:
        # Averages are what training evaluates and keeps, where it makes any.
        read_variables(folder, averaged_variables(network), start=averages_at)
