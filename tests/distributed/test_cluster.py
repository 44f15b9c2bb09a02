"""The workers of a cluster: TF_CONFIG, Slurm, lost workers; the templates of docs/cluster.md."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

import run
from library.distributed import cluster as cluster_module
from library.distributed.cluster import (
    Cluster,
    find_lost,
    log_while_waiting,
    read_cluster,
    wait_for_workers,
)
from library.errors import SettingsError, UserError, run_main
from project.settings import read_settings
from tests.conftest import ROOT
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
        ({"TF_CONFIG": "[" * 100_000}, "TF_CONFIG can't be read"),
        *(
            (
                {"TF_CONFIG": f'{{"cluster": {{"worker": ["a:1", "b:1"]}}, "task": {task}}}'},
                "TF_CONFIG",
            )
            for task in ('{"type": "worker", "index": 1e400}', '{"index": "\\u0000"}', "3", "[1]")
        ),
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
    both_are_done, through = threading.Barrier(2, timeout=60), []

    def work(index):
        wait_for_workers(Cluster(addresses, index), 60)
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


def test_worker_says_whom_it_waits_for(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(cluster_module, "WAITING_SECONDS", 0.1)
    ports = free_ports(2)
    cluster = Cluster(tuple(f"127.0.0.1:{port}" for port in ports), 1)
    line = f"waiting for worker 0 (127.0.0.1:{ports[0]})"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for_workers, cluster, 60)
        while line not in caplog.messages:
            time.sleep(0.01)
        with socket.create_server(("", ports[0])):
            waiting.result()
    caplog.clear()
    with log_while_waiting(cluster):
        while line not in caplog.messages:
            time.sleep(0.01)


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


# docs/cluster.md: each template's command, with the environment that its platform would set.

PAGE = (ROOT / "docs" / "cluster.md").read_text()

# In the place of Python: writes what it was started with to a file.
PYTHON = """#!{python} -IS
import json, os, sys
with open(f"{folder}/{{os.getpid()}}.json", "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
"""

# Two tasks on one node, as Slurm would start them.
SRUN = """#!/bin/sh
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost SLURM_STEP_TASKS_PER_NODE=2
for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@" & done
wait
"""


def template(title):
    """The text of the first code block below a title."""
    return re.search(rf"^## {title}.*?^```\w+\n(.*?)^```", PAGE, re.M | re.S)[1]


@pytest.fixture
def tiny(colors, tmp_path):
    """A function that makes a template's text train on the colors for one epoch."""

    def replaced(text):
        for folder in ("/gcs/BUCKET", "/data", "/shared"):
            text = text.replace(f"{folder}/dataset", str(colors))
            text = text.replace(f"{folder}/out", str(tmp_path / "out"))
        text = text.replace("=dataset", f"={colors}").replace("=out/cluster", f"={tmp_path}/out")
        more = "--model=simple --image_size=4 --batch_size=16 --train_epochs=1 --no-report"
        assert "--train_epochs=90" in text
        return text.replace("--train_epochs=90", more)

    return replaced


@pytest.fixture
def programs(tmp_path):
    """A folder of programs that stand for the platform's, `python` and `srun`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    texts = {"python": PYTHON.format(python=sys.executable, folder=folder), "srun": SRUN}
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def run_script(script, programs, **environ):
    """Run a script of /bin/sh, and the Python programs that it starts as workers."""
    environ = {**environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["/bin/sh", "-c", script], env=environ, check=True, timeout=60)


def recorded(programs):
    """What scripts have started as workers: (arguments of run.py, environment)."""
    workers = []
    for path in sorted(programs.glob("*.json")):
        (program, *arguments), environ = json.loads(path.read_text())
        assert program == "run.py"
        workers.append((arguments, environ))
    return workers


def check_workers(workers, run_dir, monkeypatch):
    """Both are of one cluster, and train into the same folder."""
    clusters = []
    for arguments, environ in workers:
        assert read_settings(arguments).project.run_dir == str(run_dir)
        with monkeypatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            clusters.append(read_cluster())
    addresses = clusters[0].addresses
    assert len(set(addresses)) == 2
    assert sorted(clusters, key=lambda each: each.index) == [
        Cluster(addresses, 0),
        Cluster(addresses, 1),
    ]


def test_template_tf_config(tiny, programs, tmp_path, monkeypatch):
    run_script(tiny(template("TF_CONFIG")), programs)
    check_workers(recorded(programs), tmp_path / "out", monkeypatch)


def test_template_vertex_ai(tiny, tmp_path, monkeypatch):
    pools = yaml.safe_load(tiny(template("Vertex AI")))
    ports = free_ports(2)
    cluster = {"chief": [f"127.0.0.1:{ports[0]}"], "worker": [f"127.0.0.1:{ports[1]}"]}
    workers = []
    for kind, pool in zip(("chief", "worker"), pools["workerPoolSpecs"], strict=True):
        assert pool["replicaCount"] == 1
        package = pool["pythonPackageSpec"]
        task = {"type": kind, "index": 0}
        config = {"cluster": cluster, "environment": "cloud", "task": task}
        words = [word for each in package["args"] for word in shlex.split(each)]
        workers.append((words, {"TF_CONFIG": json.dumps(config)}))
        assert package["pythonModule"] == run.__name__
    check_workers(workers, tmp_path / "out", monkeypatch)


def test_template_kubernetes(tiny, programs, tmp_path, monkeypatch):
    service, job = yaml.safe_load_all(tiny(template("Kubernetes")))
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"]
    (container,) = pod["containers"]
    shell, option, script = container["command"]
    assert (shell, option) == ("sh", "-c")
    ports = free_ports(2)
    # In the place of the service's host names, a port of this machine for each.
    script = script.replace("training-%s.training:2222", "127.0.0.1:%s").replace(
        "$(seq 0 $((WORKERS - 1)))", f"{ports[0]} {ports[1]}"
    )
    environ = {each["name"]: each["value"] for each in container["env"]}
    assert int(environ["WORKERS"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    for index in range(2):
        run_script(script, programs, JOB_COMPLETION_INDEX=str(index), **environ)
    check_workers(recorded(programs), tmp_path / "out", monkeypatch)


@pytest.mark.parametrize(("code", "queued"), [(143, ["requeue 77"]), (1, []), (0, [])])
def test_template_slurm_requeues_after_time_limit(programs, code, queued):
    requeued = programs / "requeued"
    requeued.touch()
    for name, text in {"srun": f"exit {code}", "scontrol": f'echo "$@" >> {requeued}'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    environ = {"SLURM_JOB_ID": "77", "PATH": f"{programs}:{os.environ['PATH']}"}
    assert subprocess.run(["/bin/sh", "-c", template("Slurm")], env=environ).returncode == code
    assert requeued.read_text().splitlines() == queued


def test_template_slurm(tiny, programs, tmp_path, monkeypatch):
    run_script(tiny(template("Slurm")), programs, SLURM_JOB_ID=str(free_ports(1)[0]))
    check_workers(recorded(programs), tmp_path / "out", monkeypatch)
