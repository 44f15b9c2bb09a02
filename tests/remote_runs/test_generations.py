"""Generations in a bucket: complete or absent, verified, pruned; local copies in step with them."""

import os
import shutil

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from library.dataset.storage import open_store
from library.errors import CheckpointError, UserError
from library.files import seal_folder
from library.remote_runs import lease as lease_module
from library.remote_runs import local_copy, uploads
from library.remote_runs.fetching import add_changes, fetch, fetch_run
from library.remote_runs.generations import RemoteFolder, Upload
from library.remote_runs.lease import Lease, LostLeaseError
from library.remote_runs.local_copy import LocalCopy
from library.remote_runs.training_copies import training_copies

URL = "memory://bucket/run"


@pytest.fixture(autouse=True)
def fast(memory_store, monkeypatch):
    monkeypatch.setattr(lease_module, "_SETTLE_SECONDS", 0)
    for name in ("_POLL_SECONDS", "_RETRY_SECONDS"):
        monkeypatch.setattr(uploads, name, 0.05)


def use_disk(monkeypatch, folder):
    """Go to another machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


def write_sealed(folder, **files):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    seal_folder(folder)


def write_step(folder, step):
    """Write what a training has after a step."""
    write_sealed(
        folder / "checkpoints" / f"step_{step:010d}",
        state=f"{step}",
        **{"variables.npz": f"v{step}"},
    )
    write_sealed(folder / "best", model=f"best {step}", classes="[]")
    (folder / "logs").mkdir(exist_ok=True)
    with (folder / "logs" / "events").open("a") as file:
        file.write(f"{step}\n")


def publish(copy):
    copy.remote.publish(copy.capture(), Upload(copy.staged))
    copy.write_note()


def train_to(folder, *steps, keep=3):
    copy = LocalCopy(RemoteFolder(URL, keep), folder)
    for step in steps:
        write_step(folder, step)
        publish(copy)
    return copy


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def restored(tmp_path, name="other"):
    copy = LocalCopy(RemoteFolder(URL), tmp_path / name)
    copy.restore(with_bulk=True)
    return copy


def objects():
    store, path = open_store(URL)
    return {each.removeprefix(f"{path}/") for each in store.find(path)}


def damage(path):
    store, root = open_store(URL)
    store.pipe_file(f"{root}/{path}", b"x" + store.cat_file(f"{root}/{path}")[1:])


def test_restore_is_what_was_published(tmp_path):
    train_to(tmp_path / "run", 1, 2)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_0000000001")
    assert contents(restored(tmp_path).folder) == contents(tmp_path / "run")


def test_files_have_their_own_names_too(tmp_path):
    train_to(tmp_path / "run", 1, 2)
    assert {each for each in objects() if not each.startswith(".run/")} == {
        *("best/model", "best/classes", "best/hashes.json", "logs/events")
    }
    store, path = open_store(URL)
    assert store.cat_file(f"{path}/best/model") == b"best 2"
    assert store.cat_file(f"{path}/logs/events") == b"1\n2\n"


def test_only_the_last_checkpoints_are_kept(tmp_path):
    copy = train_to(tmp_path / "run", 1, 2, 3, 4, keep=2)
    names = copy.remote.names()
    assert [copy.remote.read(each).checkpoints for each in names] == [
        {"checkpoints/step_0000000004"},
        {"checkpoints/step_0000000003"},
    ]
    listed = {e.sha256 for each in names for e in copy.remote.read(each).files.values()}
    assert {each for each in objects() if "objects" in each} == {
        f".run/objects/{sha256}" for sha256 in listed
    }


@pytest.mark.parametrize("kind", ["variables", "missing", "list"])
def test_damaged_generation_falls_back(tmp_path, kind, caplog):
    copy = train_to(tmp_path / "run", 1, 2)
    name, sha256 = (
        copy.remote.current.name,
        copy.remote.current.files["checkpoints/step_0000000002/variables.npz"].sha256,
    )
    if kind == "missing":
        copy.remote.remove([f".run/objects/{sha256}"])
    else:
        damage(f".run/generations/{name}" if kind == "list" else f".run/objects/{sha256}")
    again = restored(tmp_path)
    assert (again.folder / "best" / "model").read_text() == "best 1"
    assert not (again.folder / "checkpoints" / "step_0000000002").exists()
    assert "generation 2" in caplog.text
    # The same bytes come again: they replace the damaged ones.
    write_step(again.folder, 2)
    publish(again)
    assert contents(restored(tmp_path, "third").folder)["best/model"] == "best 2"


def test_all_damaged(tmp_path):
    copy = train_to(tmp_path / "run", 1)
    damage(f".run/generations/{copy.remote.current.name}")
    with pytest.raises(CheckpointError, match=URL):
        restored(tmp_path)
    assert not (tmp_path / "other").exists()


def test_list_can_not_name_files_elsewhere(tmp_path):
    copy = LocalCopy(RemoteFolder(URL), tmp_path / "run")
    write_step(tmp_path / "run", 1)
    files = copy.capture()
    copy.remote.publish({"../escaped": next(iter(files.values()))}, Upload(copy.staged))
    with pytest.raises(CheckpointError):
        restored(tmp_path)
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("failing", range(0, 18, 3))
def test_interrupted_publish_leaves_the_earlier_generation(tmp_path, failing, monkeypatch):
    copy = train_to(tmp_path / "run", 1, keep=1)
    before = contents(restored(tmp_path, "before").folder)
    write_step(tmp_path / "run", 2)
    calls = 0

    with monkeypatch.context() as patch:
        for method in ("put_file", "pipe_file", "cp_file", "rm_file"):
            original = getattr(MemoryFileSystem, method)

            def call(self, *arguments, original=original, **options):
                nonlocal calls
                calls += 1
                if calls > failing:
                    raise OSError("the store is away")
                return original(self, *arguments, **options)

            patch.setattr(MemoryFileSystem, method, call)
        is_whole = True
        try:
            publish(copy)
        except UserError:
            is_whole = False
    after = contents(restored(tmp_path, "after").folder)
    new = {k: v for k, v in contents(tmp_path / "run").items() if "step_0000000001" not in k}
    assert after in (before, new)
    if is_whole:
        assert after == new
    publish(copy)
    assert contents(restored(tmp_path, "again").folder) == new


def test_capture_while_a_snapshot_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(local_copy, "_ATTEMPTS", 2)
    copy = train_to(tmp_path / "run", 1)
    best = tmp_path / "run" / "best"
    best.rename(best.with_name("best.previous"))
    assert copy.marks().all == frozenset()
    with pytest.raises(UserError, match=str(tmp_path)):
        copy.capture()
    best.with_name("best.previous").rename(best)
    assert "best/model" in copy.capture()


def test_captured_files_survive_their_removal(tmp_path):
    copy = LocalCopy(RemoteFolder(URL), tmp_path / "run")
    write_step(tmp_path / "run", 1)
    files = copy.capture()
    shutil.rmtree(tmp_path / "run")
    copy.remote.publish(files, Upload(copy.staged))
    assert contents(restored(tmp_path).folder)["checkpoints/step_0000000001/state"] == "1"


def test_results_are_added_beside_a_training(tmp_path):
    training = train_to(tmp_path / "run", 1)
    reading = fetch_run(RemoteFolder(URL))
    write_step(tmp_path / "run", 2)
    publish(training)
    (reading.folder / "evaluation").mkdir()
    (reading.folder / "evaluation" / "test.json").write_text("{}")
    add_changes(reading)
    # What the training has added meanwhile is downloaded next time.
    assert contents(fetch_run(RemoteFolder(URL)).folder)["best/model"] == "best 2"
    write_step(tmp_path / "run", 3)
    publish(training)
    found = contents(restored(tmp_path).folder)
    assert found["evaluation/test.json"] == "{}"
    assert found["best/model"] == "best 3"


def test_reading_leaves_out_variables(tmp_path):
    train_to(tmp_path / "run", 1, 2)
    run = fetch(URL)
    assert (run / "best" / "model").is_file()
    assert not list(run.rglob("variables.npz")) + list(run.rglob("events"))
    checkpoint = fetch(f"{URL}/checkpoints/step_0000000001")
    assert (checkpoint / "variables.npz").read_text() == "v1"
    assert (checkpoint.parent.parent / "best").is_dir()


def test_fetch_plain_files(tmp_path):
    store, path = open_store("memory://bucket/plain")
    for name in ("a.keras", "b.ckpt.index", "b.ckpt.data-00000-of-00001", "best/model.keras"):
        store.pipe_file(f"{path}/{name}", name.encode())
    assert fetch("memory://bucket/plain/a.keras").read_bytes() == b"a.keras"
    prefix = fetch("memory://bucket/plain/b.ckpt")
    assert prefix.with_name("b.ckpt.index").is_file()
    assert (fetch("memory://bucket/plain/best") / "model.keras").is_file()
    with pytest.raises(CheckpointError, match=r"memory://bucket/plain/c"):
        fetch("memory://bucket/plain/c")


def use(url=URL, wait_seconds=5.0, **options):
    options = {"starts_over": False, "is_cluster": False, **options}
    return training_copies([RemoteFolder(url, 3)], wait_seconds, **options)


@pytest.mark.parametrize("is_ahead", [True, False])
def test_training_copies_move_between_machines(tmp_path, monkeypatch, caplog, is_ahead):
    with use() as (first,):
        write_step(first, 0)
        write_step(first, 1)
    if is_ahead:
        write_step(first, 2)
    use_disk(monkeypatch, tmp_path / "second")
    with use() as (folder,):
        assert "checkpoints/step_0000000001/state" in contents(folder)
        write_step(folder, 7)
    use_disk(monkeypatch, tmp_path / "disk")
    with use() as (folder,):
        assert folder == first
        assert "best 7" in contents(folder).values()
    aside = first.with_name("run.1")
    assert (aside / "checkpoints" / "step_0000000002").is_dir() == is_ahead
    assert (str(aside) in caplog.text) == is_ahead


def test_newer_local_copy_counts(tmp_path, monkeypatch):
    with use() as (folder,):
        write_step(folder, 1)
    write_step(folder, 2)
    with use() as (folder,):
        assert "best 2" in contents(folder).values()
    assert contents(restored(tmp_path).folder)["best/model"] == "best 2"
    write_step(folder, 3)
    # Other workers can't know of it.
    with use(is_cluster=True) as (folder,):
        assert "best 2" in contents(folder).values()


def test_start_over_does_not_replace_a_run():
    with use() as (folder,):
        write_step(folder, 1)
    with pytest.raises(UserError, match=URL), use(starts_over=True):
        pass


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.2)


def test_lease_keeps_others_out(short_lease, monkeypatch):
    one, other = Lease(RemoteFolder(URL)), Lease(RemoteFolder(URL))
    one.acquire()
    sleep = lease_module.time.sleep
    monkeypatch.setattr(lease_module.time, "sleep", lambda s: (sleep(s), one.renew()))
    with pytest.raises(UserError, match=rf"{URL} .*process {os.getpid()} "):
        other.acquire()
    one.renew()
    one.release()
    other.acquire()


def test_lease_of_a_dead_holder_is_taken(short_lease):
    one, other = Lease(RemoteFolder(URL)), Lease(RemoteFolder(URL))
    one.acquire()
    other.acquire()
    for call in (one.renew, one.check, one.release):
        with pytest.raises(LostLeaseError):
            call()
    other.check()


def test_lease_of_the_same_machine_is_taken_at_once(monkeypatch):
    one = Lease(RemoteFolder(URL))
    one.acquire()
    monkeypatch.setattr(lease_module.time, "monotonic", None)
    Lease(RemoteFolder(URL), one.token).acquire()


def train_once(wait_seconds=5.0, meanwhile=lambda: None):
    with use(wait_seconds=wait_seconds) as (folder,):
        meanwhile()
        write_step(folder, 1)


def test_training_that_lost_its_lease_publishes_nothing(short_lease):
    with pytest.raises(UserError, match="in use"):
        train_once(meanwhile=Lease(RemoteFolder(URL)).acquire)
    assert RemoteFolder(URL).names() == []


def test_end_says_what_is_missing(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("the store is away")

    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    with pytest.raises(UserError, match=r"the store is away.*checkpoints/step_0000000001") as error:
        train_once(wait_seconds=0.5)
    assert error.value.exit_code == 1
    assert str(tmp_path / "disk") in str(error.value)


def test_uploads_catch_up(monkeypatch, caplog):
    put = MemoryFileSystem.put_file
    failures = iter([OSError("the store is away")] * 2)

    def refuse_twice(*arguments, **options):
        for error in failures:
            raise error
        return put(*arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse_twice)
    with use(wait_seconds=20) as (folder,):
        write_step(folder, 1)
    assert RemoteFolder(URL).names()
    assert "the store is away" in caplog.text
    assert "late" in caplog.text
