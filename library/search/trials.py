"""Trials: claimed by one process at a time, taken over from dead ones, and finished."""

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from library.errors import UserError
from library.files import locked
from library.search import storage as search_storage
from library.search.sampling import Pruning, SearchPlan
from library.search.storage import StudyStore, without_experimental_warnings

logger = logging.getLogger(__name__)

# A trial that ends its process this often without any progress in between is not tried again.
MAX_STARTS = 5
# Attributes of a trial.
_PLACE, _SUGGESTION, _STARTS, REASON, RESULT = "place", "suggestion", "starts", "reason", "result"


class TrialLostError(Exception):
    """Another worker has taken over the trial, because this one did not answer for long."""


class PrunedError(Exception):
    """The trial is worse than others were by now, and ends here."""

    # How experiment trackers say that the training ended (library/tracking).
    tracked_status = "pruned"


def counts(trial: FrozenTrial) -> bool:
    """Return whether a trial is one of those that were asked for.

    Others are those of lost workers, which are tried again under another number, and those that
    two workers began at once when only one was left to do.
    """
    return trial.state != TrialState.FAIL or REASON in trial.user_attrs


@dataclass(frozen=True)
class TrialQueue:
    """Claims trials of a study, and records what became of them.

    Attributes:
        store: The study.
        plan: How to search.
        limit: Number of trials in all.
    """

    store: StudyStore
    plan: SearchPlan
    limit: int

    @contextlib.contextmanager
    def claimed(self) -> Iterator[FrozenTrial | None]:
        """Claim the next trial within the block: one that was interrupted, or a new one.

        Yields:
            The trial, with all its parameters; None if all are finished, or run in other processes.
        """
        with ExitStack() as stack:
            yield self._claim(stack)

    def _claim(self, stack: ExitStack) -> FrozenTrial | None:
        for trial in self._in_state(TrialState.RUNNING):
            if trial.user_attrs.get(_PLACE) == self.store.place and self._hold(stack, trial):
                logger.info(f"Trial {trial.number} was interrupted: resuming it")
                return self._prepared(trial.number)
        if isinstance(self.store.storage, optuna.storages.RDBStorage):
            study = optuna.load_study(study_name=self.store.name, storage=self.store.storage)
            with without_experimental_warnings():
                optuna.storages.fail_stale_trials(study)
        for trial in self._in_state(TrialState.WAITING):
            if self.store.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                self._set(trial, _PLACE, self.store.place)
                if self._hold(stack, trial):
                    logger.info(f"Trial {trial.number} repeats one whose worker was lost")
                    return self._prepared(trial.number)
        while sum(map(counts, self.store.trials())) < self.limit:
            trial = self._create()
            if sum(map(counts, self.store.trials()[: trial.number])) >= self.limit:
                # Another worker has begun the last one at the same time.
                self._end(trial, TrialState.FAIL)
            elif self._hold(stack, trial):
                return self._prepared(trial.number)
        return None

    def _in_state(self, state: TrialState) -> list[FrozenTrial]:
        return [each for each in self.store.trials() if each.state == state]

    def _create(self) -> FrozenTrial:
        """Make a trial without parameters: they depend on its number."""
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING, user_attrs={_PLACE: self.store.place}
        )
        trial_id = self.store.storage.create_new_trial(self.store.study_id, template)
        return self.store.storage.get_trial(trial_id)

    def _hold(self, stack: ExitStack, trial: FrozenTrial) -> bool:
        """Hold a trial's lock until the stack is closed. Return whether it is ours to run."""
        lock = locked(self.store.lock_path(trial.number), f"trial {trial.number}")
        try:
            held = stack.enter_context(ExitStack())
            held.enter_context(lock)
        except UserError:
            return False
        if self._state_of(trial.number) != TrialState.RUNNING:
            held.close()  # Another process has finished it a moment ago.
            return False
        if isinstance(self.store.storage, optuna.storages.RDBStorage):
            held.enter_context(_heartbeats(self.store.storage, trial._trial_id))
        return True

    def _state_of(self, number: int) -> TrialState:
        return self.store.trials()[number].state

    def _prepared(self, number: int) -> FrozenTrial:
        """Return a trial after completing its parameters, which a killed process may have begun."""
        store, trials = self.store, self.store.trials()
        trial = trials[number]
        suggestion = trial.user_attrs.get(_SUGGESTION)
        if suggestion is None and trial.params.keys() != self.plan.domains.keys():
            found = self.plan.suggest(trials[:number])
            for name, value in found.system_attrs.items():
                store.storage.set_trial_system_attr(trial._trial_id, name, value)
            suggestion = {
                name: each.to_internal_repr(found.params[name])
                for name, each in self.plan.distributions.items()
            }
            # From here on it is fixed, whatever other trials find in the meantime.
            self._set(trial, _SUGGESTION, suggestion)
        for name, value in (suggestion or {}).items():
            if name not in trial.params:
                distribution = self.plan.distributions[name]
                store.storage.set_trial_param(trial._trial_id, name, value, distribution)
        return store.trials()[number]

    def was_started(self, trial: FrozenTrial) -> bool:
        """Return whether a process has begun to train a trial."""
        return _STARTS in trial.user_attrs

    def count_start(self, trial: FrozenTrial, progress: str) -> int:
        """Record that a process starts to train a trial.

        Args:
            trial: The trial.
            progress: What changes if the training proceeds, such as the newest checkpoint's name.

        Returns:
            How often it was started before without any progress since then.
        """
        before, since = trial.user_attrs.get(_STARTS) or (0, progress)
        count = before if since == progress else 0
        self._set(trial, _STARTS, [count + 1, progress])
        return count

    def report(self, trial: FrozenTrial, pruning: Pruning, value: float) -> bool:
        """Record an evaluation, and return whether the trial is pruned: it is then finished.

        Args:
            trial: The trial.
            pruning: Its decisions so far.
            value: The first objective's metric.

        Raises:
            TrialLostError: The trial is no longer this worker's.
        """
        trials = self.store.trials()
        if trials[trial.number].state != TrialState.RUNNING:
            raise TrialLostError
        is_pruned = pruning.should_prune(value, trials)
        if len(self.plan.directions) > 1:
            return False
        storage, trial_id = self.store.storage, trial._trial_id
        with _explained_loss():
            storage.set_trial_intermediate_value(trial_id, pruning.evaluations, value)
            for name, each in pruning.rungs.items():
                if trials[trial.number].system_attrs.get(name) != each:
                    storage.set_trial_system_attr(trial_id, name, each)
        return is_pruned

    def finish(
        self,
        trial: FrozenTrial,
        values: Sequence[float],
        result: Mapping[str, Any],
        *,
        is_pruned: bool = False,
    ) -> None:
        """Record a finished trial.

        Args:
            trial: The trial.
            values: The value of each objective; if it was pruned, that of the last evaluation.
            result: What else to show of it, as JSON values.
            is_pruned: Whether it was pruned.

        Raises:
            TrialLostError: The trial is no longer this worker's.
        """
        with _explained_loss():
            self._set(trial, RESULT, dict(result))
            self._end(trial, TrialState.PRUNED if is_pruned else TrialState.COMPLETE, values)

    def fail(self, trial: FrozenTrial, reason: str) -> None:
        """Record a failed trial with the reason."""
        logger.warning(f"trial {trial.number} failed: {reason}")
        with _explained_loss():
            self._set(trial, REASON, reason)
            self._end(trial, TrialState.FAIL)

    def _set(self, trial: FrozenTrial, name: str, value: Any) -> None:
        self.store.storage.set_trial_user_attr(trial._trial_id, name, value)

    def _end(
        self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None = None
    ) -> None:
        self.store.storage.set_trial_state_values(trial._trial_id, state, values)


@contextlib.contextmanager
def _explained_loss() -> Iterator[None]:
    try:
        yield
    except UpdateFinishedTrialError as error:
        raise TrialLostError from error


@contextlib.contextmanager
def _heartbeats(storage: optuna.storages.RDBStorage, trial_id: int) -> Iterator[None]:
    """Record heartbeats of a trial within the block, in a thread.

    Optuna's thread ends at the first error, such as a restart of the database.
    """
    storage.record_heartbeat(trial_id)
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(search_storage.HEARTBEAT_SECONDS):
            with contextlib.suppress(Exception):
                storage.record_heartbeat(trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
