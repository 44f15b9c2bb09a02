"""docs/cluster.md: each template's command, with the environment that its platform would set."""

import json
import os
import re
import shlex
import sys

import pytest
import yaml

from tests.conftest import ROOT
from tests.workers import finish, free_ports, start

PAGE = (ROOT / "docs" / "cluster.md").read_text()


def template(title):
    """The text of the first code block below a title."""
    return re.search(rf"^## {title}.*?^```\w+\n(.*?)^```", PAGE, re.M | re.S)[1]


@pytest.fixture
def tiny(colours, tmp_path):
    """A function that makes a template's text train on the colours, shortly."""

    def replaced(text):
        for folder in ("/gcs/BUCKET", "/data", "/shared"):
            text = text.replace(f"{folder}/dataset", str(colours))
            text = text.replace(f"{folder}/out", str(tmp_path / "out"))
        text = text.replace("=dataset", f"={colours}").replace("=out/cluster", f"={tmp_path}/out")
        more = "--image_size=8 --batch_size=16 --train_epochs=1"
        assert "--train_epochs=90" in text
        return text.replace("python run.py", f"{sys.executable} run.py").replace(
            "--train_epochs=90", more
        )

    return replaced


def check(processes, run_dir, workers=2):
    """All ended well, and the chief said what they were."""
    results = [finish(each) for each in processes]
    assert [code for code, _ in results] == [0] * len(results), results
    errors = "".join(text for _, text in results)
    assert f"{workers} CPUs of {workers} workers, 8 images a step on each" in errors
    assert (run_dir / "best" / "model.keras").exists()


@pytest.mark.slow
def test_tf_config_by_hand(tiny, tmp_path):
    text = tiny(template("TF_CONFIG"))
    for old, port in zip(("12345", "12346"), free_ports(2), strict=True):
        text = text.replace(old, str(port))
    check([start(["-c", text], program=(), executable="/bin/sh")], tmp_path / "out")


@pytest.mark.slow
def test_vertex_ai(tiny, tmp_path):
    pools = yaml.safe_load(tiny(template("Vertex AI")))
    ports = free_ports(2)
    cluster = {"chief": [f"127.0.0.1:{ports[0]}"], "worker": [f"127.0.0.1:{ports[1]}"]}
    processes = []
    for kind, pool in zip(("chief", "worker"), pools["workerPoolSpecs"], strict=True):
        assert pool["replicaCount"] == 1
        package = pool["pythonPackageSpec"]
        task = {"type": kind, "index": 0}
        config = {"cluster": cluster, "environment": "cloud", "task": task}
        words = [word for each in package["args"] for word in shlex.split(each)]
        environ = {"TF_CONFIG": json.dumps(config)}
        processes.append(start(words, environ, program=("-m", package["pythonModule"])))
    check(processes, tmp_path / "out")


@pytest.mark.slow
def test_kubernetes(tiny, tmp_path):
    service, job = yaml.safe_load_all(tiny(template("Kubernetes")))
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"]
    (container,) = pod["containers"]
    shell, option, script = container["command"]
    ports = free_ports(2)
    # The names that the service would give, and one port for each: all are on this machine.
    script = script.replace("training-%s.training:2222", "127.0.0.1:%s").replace(
        "$(seq 0 $((WORKERS - 1)))", f"{ports[0]} {ports[1]}"
    )
    environ = {each["name"]: each["value"] for each in container["env"]}
    assert int(environ["WORKERS"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    processes = [
        start(
            [option, script],
            {**environ, "JOB_COMPLETION_INDEX": str(index)},
            (),
            executable=f"/bin/{shell}",
        )
        for index in range(2)
    ]
    check(processes, tmp_path / "out")


SRUN = """#!/bin/sh
# Two tasks on one node, as srun would start them.
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=localhost SLURM_STEP_TASKS_PER_NODE=2
for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@" & done
wait
"""


@pytest.mark.slow
def test_slurm(tiny, tmp_path):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environ = {"PATH": path, "SLURM_JOB_ID": str(free_ports(1)[0])}
    text = tiny(template("Slurm"))
    check([start(["-c", text], environ, (), executable="/bin/sh")], tmp_path / "out")
