import json
import re
import socket
import threading

import pytest

import run
from library.errors import SettingsError, UserError, run_main
from library.training.cluster import Cluster, find_lost, read_cluster, wait_for_workers
from tests.helpers.workers import free_ports


def tf_config(jobs, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


def test_tf_config_of_workers():
    jobs = {"worker": ["a:1", "b:2"]}
    assert read_cluster(tf_config(jobs, index=1)) == Cluster(("a:1", "b:2"), 1)


def test_tf_config_with_chief():
    jobs = {"worker": ["b:2", "[::1]:3"], "chief": ["a:1"]}
    assert read_cluster(tf_config(jobs, "chief")) == Cluster(("a:1", "b:2", "[::1]:3"), 0)
    assert read_cluster(tf_config(jobs, "worker", 1)).index == 2


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": "{}"},
        tf_config({"chief": ["a:1"]}, "chief"),
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
        # In a batch script, outside srun.
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
    ],
)
def test_one_worker_is_no_cluster(environ):
    assert read_cluster(environ) is None


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"TF_CONFIG": "{"}, "TF_CONFIG can't be read"),
        ({"TF_CONFIG": "[]"}, "TF_CONFIG can't be read"),
        ({"TF_CONFIG": '{"cluster": {"worker": 3}}'}, "TF_CONFIG can't be read"),
        (tf_config({"worker": ["a:1", "b:2"]}, index=2), "task worker 2"),
        (tf_config({"worker": ["a:1", "b:2"]}, "evaluator"), "evaluators"),
        (tf_config({"worker": ["a", "b:2"]}), "'a'"),
        (
            tf_config({"worker": ["a:1", "b:99999"]}),
            "'b:99999'",
        ),
        (tf_config({"worker": ["a:0", "b:2"]}), "'a:0'"),
        ({"SLURM_STEP_NUM_TASKS": "x"}, "SLURM_STEP_NUM_TASKS is 'x'"),
        (tf_config({"worker": ["a:1", "a:1"]}), "same address"),
    ],
)
def test_malformed_variable_is_named(environ, words):
    with pytest.raises(SettingsError, match=words):
        read_cluster(environ)


SLURM = {
    "SLURM_JOB_ID": "1007",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}


def test_slurm(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    addresses = ("node07:10140", "node07:10141", "node08:10140")
    assert read_cluster() == Cluster(addresses, 2)
    monkeypatch.setenv("SLURM_JOB_ID", "x")
    with pytest.raises(SettingsError, match="SLURM_JOB_ID is 'x'"):
        read_cluster()
    monkeypatch.setenv("SLURM_JOB_ID", "1007")
    monkeypatch.delenv("SLURM_STEP_NODELIST")
    with pytest.raises(SettingsError, match="SLURM_STEP_NODELIST"):
        read_cluster()


def test_workers_wait_for_each_other():
    ports = free_ports(2)
    addresses = tuple(f"127.0.0.1:{port}" for port in ports)
    both_are_done, through = threading.Barrier(2, timeout=30), []

    def work(index):
        wait_for_workers(Cluster(addresses, index), 20)
        # Whoever leaves first has TensorFlow's server at its port; here, a plain one.
        with socket.create_server(("", ports[index])):
            both_are_done.wait()
            through.append(index)

    other = threading.Thread(target=work, args=(1,))
    other.start()
    work(0)
    other.join()
    assert sorted(through) == [0, 1]


def test_missing_workers_are_named():
    (port,) = free_ports(1)
    cluster = Cluster((f"127.0.0.1:{port}", "127.0.0.1:1", "127.0.0.1:2"), 0)
    with pytest.raises(UserError, match=r"worker 1 \(127.0.0.1:1\) and worker 2 .* 0.1 s"):
        wait_for_workers(cluster, 0.1)


def test_port_in_use_is_named():
    (port,) = free_ports(1)
    with (
        socket.create_server(("", port)),
        pytest.raises(UserError, match=rf"this worker's port {port} .*Address already in use"),
    ):
        wait_for_workers(Cluster((f"127.0.0.1:{port}", "127.0.0.1:1"), 0), 0.1)


def test_find_lost():
    with socket.create_server(("", 0)) as silent, socket.create_server(("", 0)) as living:
        ports = [silent.getsockname()[1], living.getsockname()[1]]
        addresses = ("me:1", "127.0.0.1:1", *(f"127.0.0.1:{port}" for port in ports))

        def run_main():
            connection, _ = living.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"settings")

        server = threading.Thread(target=run_main)
        server.start()
        assert find_lost(Cluster(addresses, 0), seconds=0.5) == [1, 2]
        server.join()


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        ("text", 2, "TF_CONFIG can't be read"),
        ("missing", 1, r"worker 1 \(127\.0\.0\.1:1\) .* 0\.1 s"),
        ("taken", 1, "port .*: Address already in use"),
    ],
)
def test_error_is_one_line(options, monkeypatch, capsys, wrong, code, words):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1] if wrong == "taken" else free_ports(1)[0]
        config = tf_config({"worker": [f"127.0.0.1:{port}", "127.0.0.1:1"]})["TF_CONFIG"]
        monkeypatch.setenv("TF_CONFIG", "{" if wrong == "text" else config)
        assert run_main(run.main, [*options, "--worker_wait_secs=0.1"], "run.py") == code
    said = capsys.readouterr().err
    assert re.fullmatch(rf"run\.py: error: .*{words}.*\n", said), said
