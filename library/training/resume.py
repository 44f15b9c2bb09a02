"""The state of a run, as a checkpoint keeps it: read back at the start, saved on the way."""

from library.errors import CheckpointError
from library.messages import counted
from library.models.scores import is_multi_label
from library.saving.checkpoints import check_classes, check_multi_label, read_state, read_variables
from library.training.divergence import check_state
from library.training.steps import unwrap_optimizer


def resume(run):
    """Put a new Training where its latest checkpoint is, if there is one, and say so.

    Raises CheckpointError where none fits, or none is there and the plan wants one.
    """
    path = run.devices.chief_first(lambda: run.checkpoints.find_latest())
    if path is None:
        if run.plan.resume == "must":
            raise CheckpointError(
                f"no checkpoint in {run.checkpoints.folder}, and --resume must wants one"
            )
        return
    state = read_state(path)
    check_classes(path, state["classes"], run.paths.classes)
    check_multi_label(path, state.get("several", False), is_multi_label(run.network))
    _check_steps(path, state.get("batches_per_epoch"), run.training.batches_per_epoch)
    _check_kinds(path, state, _kinds_of(run))
    total_steps = run.learning_rate.total_steps.numpy()
    read_variables(path, run.variables())
    run.devices.spread_seeds(run.network)
    if run.plan.max_minutes is None:
        # As planned now: more epochs, say. With a time to fit, as it had become.
        run.learning_rate.total_steps.assign(total_steps)
    run.step, run.epoch, run.batch = state["step"], state["epoch"], state["batch"]
    run.keeper.metrics, run.rows = state["best"], state["rows"]
    run.clock.earlier = state["seconds"]
    _take_patience(run, state)
    run.report(f"going on from {path}: epoch {run.epoch + 1}, step {run.step}")
    for key, value in run.paths.settings.items():
        before = state["settings"].get(key)
        if before != value:
            run.report(f"changed since: {key} was {before}, is {value}")
    if run.batch and state.get("order") != _order_of(run):
        run.report(
            f"changed since: the order of images, so in what is left of epoch {run.epoch + 1} "
            "some may come a second time, and others not at all"
        )


def save(run):
    """Write a checkpoint of all that a Training needs to go on exactly here."""
    state = {
        "step": run.step,
        "epoch": run.epoch,
        "batch": run.batch,
        "batches_per_epoch": run.training.batches_per_epoch,
        "order": _order_of(run),
        "best": run.best,
        "patience": run.patience.state,
        "goal": vars(run.plan.goal),
        "seconds": run.clock.elapsed,
        "rows": run.rows,
        "classes": list(run.paths.classes),
        "several": is_multi_label(run.network),
        **_kinds_of(run),
        "settings": run.paths.settings,
        "averages_at": _averages_at(run),
    }
    run.average_statistics()
    # Reading them may take all workers.
    variables = run.devices.read(run.variables())
    count = len(run.network.variables)
    check_state(variables[:count], variables[count:], run.step, run.learning_rate_at)
    if run.devices.is_chief:
        run.checkpoints.save(run.step, variables, state)
    run.clock.saved_at = run.clock.now


def _check_steps(path, stored, wanted):
    """Raise CheckpointError where an epoch has another number of steps than it had.

    What is counted in steps, such as the course of the learning rate, would mean something else.
    """
    if stored not in (None, wanted):
        raise CheckpointError(
            f"checkpoint {path} was made with {counted(stored, 'step')} an epoch, now it is "
            f"{wanted}: give the batch size, the images and, with --shard_by_file, the number of "
            "workers that it was made with, or begin anew from its weights, with another --run_dir "
            "and --checkpoint_path"
        )


def _kinds_of(run):
    """Return what may differ although all variables have the same number and shapes."""
    return {
        "image_shape": list(run.network.input_shape[1:]),
        "optimizer": type(unwrap_optimizer(run.optimizer)).__name__,
    }


def _check_kinds(path, state, kinds):
    """Raise CheckpointError where the images have another shape, or another optimizer's state."""
    for name, wanted in kinds.items():
        # Checkpoints of earlier versions do not tell.
        stored = state.get(name, wanted)
        if stored != wanted:
            raise CheckpointError(
                f"checkpoint {path} was made with {name.replace('_', ' ')} {stored}, now it is "
                f"{wanted}: use the settings it was made with, or begin anew from its weights, "
                "with another --run_dir and --checkpoint_path"
            )


def _take_patience(run, state):
    """Go on counting evaluations without improvement, as far as the goal is still the same."""
    goal = vars(run.plan.goal)
    # By name: another version's goal may say less, or more.
    changed = {key for key, value in goal.items() if state["goal"].get(key, value) != value}
    if not changed & {"metric", "mode"}:
        run.patience.state.update(state["patience"])
    if changed and run.step < run.total_steps:
        # Judged by another goal, it may go on.
        run.patience.state["stopped"] = None


def _order_of(run):
    """Return what the order within an epoch depends on, None where the inputs don't tell."""
    return getattr(run.training, "order", None)


def _averages_at(run):
    """Return where among a checkpoint's variables the averages begin, or None without any."""
    before = (run.network.variables, run.optimizer.variables, run.learning_rate.variables)
    return sum(map(len, before)) if run.averages else None
