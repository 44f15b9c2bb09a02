"""Studies with a training that is a formula: killed at any write, and shared by workers."""

import itertools

import optuna
import pytest

from library.configuration.search_space import Domain
from library.errors import SettingsError
from library.files import locked
from library.search.results import read_results
from library.search.sampling import Pruning, SearchPlan
from library.search.storage import open_study
from library.search.trials import MAX_STARTS, TrialLostError, TrialQueue

DOMAINS = {
    "x": Domain([0, 1], low=0.0, high=1.0),
    "y": Domain({}, low=1e-4, high=1.0, is_log=True),
    "n": Domain({}, low=1, high=5),
    "kind": Domain({}, choices=(("a",), (), None, True)),
}
GRID = {"n": DOMAINS["n"], "x": Domain({}, low=0.0, high=1.0, step=0.5), "kind": DOMAINS["kind"]}
EVALUATIONS = 9


@pytest.fixture(autouse=True)
def without_sync(monkeypatch):
    """Leave out what only a power cut would need, which takes most of the time."""
    monkeypatch.setattr("os.fsync", lambda _: None)


class KilledError(BaseException):
    """Stands for the end of the process."""


def make_plan(**options):
    return SearchPlan(DOMAINS, ("minimize",), evaluations=EVALUATIONS, **options)


def make_queue(folder, plan, limit=12):
    return TrialQueue(open_study(None, folder, plan.directions), plan, limit)


def loss_of(values, evaluation):
    """Return the loss after some evaluations: a curve whose end depends on the values."""
    end = (values.get("x", 0.4) - 0.3) ** 2 + 0.05 * values["n"] + (values["kind"] == ("a",))
    return end + (1 + values.get("y", 0)) / evaluation


def run_trial(queue, trial, saved):
    """Train: report each evaluation, then save it, as a run does. Resume from what is saved."""
    values = queue.plan.decode(trial.params)
    rows = saved.setdefault(trial.number, [])
    pruning = Pruning(queue.plan, trial.number)
    for row in rows:
        queue.report(trial, pruning, row)
    while len(rows) < EVALUATIONS:
        loss = loss_of(values, len(rows) + 1)
        if queue.report(trial, pruning, loss):
            queue.finish(trial, [loss], {}, is_pruned=True)
            return
        rows.append(loss)
    queue.finish(trial, [rows[-1]], {"epochs": len(rows)})


def run_study(queue, saved):
    """Run trials as long as there are any."""
    while True:
        with queue.claimed() as trial:
            if trial is None:
                return
            run_trial(queue, trial, saved)


def outcome(queue):
    return [
        (each.number, each.state, each.params, each.values, each.intermediate_values)
        for each in queue.store.trials()
    ]


def kill_at_write(queue, number):
    """Raise KilledError at one of the storage's writes; each second time after it was made."""
    backend, count = queue.store.storage._backend, itertools.count()
    append = backend.append_logs

    def append_or_die(logs):
        reached = next(count)
        if reached < number or number % 2:
            append(logs)
        if reached >= number:
            raise KilledError

    backend.append_logs = append_or_die


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "tpe", "pruner": "median"},
        {"sampler": "tpe", "pruner": "hyperband", "seed": 1},
        {"sampler": "cmaes", "pruner": "median"},
        {"sampler": "random", "pruner": "hyperband"},
        {"sampler": "grid", "domains": GRID},
    ],
    ids=lambda options: "-".join(str(options.get(name)) for name in ("sampler", "pruner")),
)
def test_killed_study_equals_an_uninterrupted_one(options, tmp_path):
    plan = SearchPlan(**{"domains": DOMAINS, "directions": ("minimize",)} | options)
    plan = SearchPlan(**{**vars(plan), "evaluations": EVALUATIONS})
    whole = make_queue(tmp_path / "whole", plan, 16)
    run_study(whole, {})
    states = {each.state for each in whole.store.trials()}
    assert (optuna.trial.TrialState.PRUNED in states) == ("pruner" in options)
    saved = {}
    for kills in itertools.count():
        killed = make_queue(tmp_path / "killed", plan, 16)
        # A trial that only starts makes about 20 writes.
        kill_at_write(killed, kills % 37)
        try:
            run_study(killed, saved)
        except KilledError:
            continue
        break
    assert kills > 10
    assert outcome(killed) == outcome(whole)


def test_suggestion_is_a_function_of_seed_and_trials():
    first = make_plan().suggest([])
    assert first.params == make_plan().suggest([]).params
    assert first.params != make_plan(seed=1).suggest([]).params
    assert first.params != make_plan().suggest([first]).params


def test_values_are_decoded_as_the_setting_has_them():
    plan = make_plan(sampler="random")
    seen = set()
    trials = []
    for _ in range(30):
        trials.append(plan.suggest(trials))
        values = plan.decode(trials[-1].params)
        assert 1e-4 <= values["y"] <= 1
        assert isinstance(values["n"], int)
        seen.add(values["kind"])
    assert seen == {("a",), (), None, True}


def test_grid_is_covered_once(tmp_path):
    plan = SearchPlan(GRID, ("minimize",), sampler="grid")
    assert plan.grid_size() == 60
    queue = make_queue(tmp_path, plan, 60)
    run_study(queue, {})
    assert len({str(each.params) for each in queue.store.trials()}) == 60
    with pytest.raises(SettingsError, match="step for x"):
        make_plan(sampler="grid")


def test_two_workers_share_a_journal_and_a_dead_ones_trial_is_taken_over(tmp_path):
    plan, saved = make_plan(), {}
    one, two = make_queue(tmp_path, plan, 3), make_queue(tmp_path, plan, 3)
    with one.claimed() as first, two.claimed() as second:
        assert (first.number, second.number) == (0, 1)
        run_trial(two, second, saved)
    # The lock of the first has ended without its trial, as with its process.
    with two.claimed() as again:
        assert again.number == 0
        assert again.params == first.params
        with one.claimed() as last:
            assert last.number == 2
            with make_queue(tmp_path, plan, 3).claimed() as nothing:
                assert nothing is None
            run_trial(one, last, saved)
        run_trial(two, again, saved)
        with pytest.raises(TrialLostError):
            one.finish(first, [1.0], {})
    assert [each.state.name for each in one.store.trials()] == ["COMPLETE"] * 3


def test_trial_that_ends_its_process_again_and_again_is_given_up(tmp_path):
    counts = []
    for progress in ("", "", "step_1", *["step_2"] * (MAX_STARTS + 1)):
        queue = make_queue(tmp_path, make_plan())
        with queue.claimed() as trial:
            counts.append(queue.count_start(trial, progress))
    assert counts == [0, 1, 0, *range(MAX_STARTS + 1)]


def test_failed_trials_are_recorded_and_not_tried_again(tmp_path):
    queue = make_queue(tmp_path, make_plan(), 2)
    with queue.claimed() as trial:
        queue.fail(trial, "out of memory")
    run_study(queue, {})
    results = read_results(queue.plan, ["loss"], queue.store.trials())
    assert results.state_counts() == {"failed": 1, "complete": 1}
    assert "out of memory" in results.table().splitlines()[1]


def test_line_that_a_power_cut_tore_is_removed(tmp_path):
    queue = make_queue(tmp_path, make_plan(), 2)
    run_study(queue, {})
    journal = tmp_path / "study.journal"
    before = outcome(queue)
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    queue = make_queue(tmp_path, make_plan(), 3)
    assert outcome(queue) == before
    run_study(queue, {})
    assert len(make_queue(tmp_path, make_plan()).store.trials()) == 3


def test_study_with_other_settings_is_refused_once_a_trial_has_reported(tmp_path):
    queue = make_queue(tmp_path, make_plan(), 1)
    queue.store.check_description({"train_epochs": 2}, "x")
    queue.store.check_description({"train_epochs": 3}, "x")
    run_study(queue, {})
    queue.store.check_description({"train_epochs": 3}, "x")
    with pytest.raises(SettingsError, match="train_epochs 3, now it is 4"):
        queue.store.check_description({"train_epochs": 4}, "x")


def test_lock_of_a_trial_is_held_while_it_runs(tmp_path):
    queue = make_queue(tmp_path, make_plan())
    with queue.claimed() as trial:
        assert queue.store.lock_path(trial.number).exists()
        with pytest.raises(Exception, match="in use"), locked(queue.store.lock_path(0), "it"):
            pass
    assert not queue.store.lock_path(trial.number).exists()
