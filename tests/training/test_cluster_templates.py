"""docs/cluster.md: each template's command, with the environment that its platform would set."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT
from tests.helpers.workers import Worker, free_ports

PAGE = (ROOT / "docs" / "cluster.md").read_text()

# In the place of Python: writes down what it was started with.
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
    """A function that makes a template's text train on the colors, shortly."""

    def replaced(text):
        for folder in ("/gcs/BUCKET", "/data", "/shared"):
            text = text.replace(f"{folder}/dataset", str(colors))
            text = text.replace(f"{folder}/out", str(tmp_path / "out"))
        text = text.replace("=dataset", f"={colors}").replace("=out/cluster", f"={tmp_path}/out")
        more = "--image_size=4 --batch_size=16 --train_epochs=1"
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
    """The workers that scripts have started: with their arguments, in their environment."""
    workers = []
    for path in sorted(programs.glob("*.json")):
        (program, *arguments), environ = json.loads(path.read_text())
        assert program == "run.py"
        workers.append(Worker(arguments, environ))
    return workers


def check(results, run_dir):
    """All ended well, and the chief said what they were."""
    assert [code for code, _ in results] == [0] * len(results), results
    said = "".join(text for _, text in results)
    assert "2 CPUs of 2 workers, 8 images a step on each" in said
    assert (run_dir / "best" / "model.keras").exists()


@pytest.mark.slow
def test_tf_config_by_hand(tiny, tmp_path):
    """The one that is run whole, Python and all."""
    text = tiny(template("TF_CONFIG")).replace("python run.py", f"{sys.executable} run.py")
    for old, port in zip(("12345", "12346"), free_ports(2), strict=True):
        text = text.replace(old, str(port))
    done = subprocess.run(
        ["/bin/sh", "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    check([(done.returncode, done.stderr)], tmp_path / "out")


@pytest.mark.slow
def test_vertex_ai(tiny, tmp_path):
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
        environ = {"TF_CONFIG": json.dumps(config)}
        workers.append(Worker(words, environ, module=package["pythonModule"]))
    check([each.finish() for each in workers], tmp_path / "out")


@pytest.mark.slow
def test_kubernetes(tiny, programs, tmp_path):
    service, job = yaml.safe_load_all(tiny(template("Kubernetes")))
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"]
    (container,) = pod["containers"]
    shell, option, script = container["command"]
    assert (shell, option) == ("sh", "-c")
    ports = free_ports(2)
    # The names that the service would give, and one port for each: all are on this machine.
    script = script.replace("training-%s.training:2222", "127.0.0.1:%s").replace(
        "$(seq 0 $((WORKERS - 1)))", f"{ports[0]} {ports[1]}"
    )
    environ = {each["name"]: each["value"] for each in container["env"]}
    assert int(environ["WORKERS"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    for index in range(2):
        run_script(script, programs, JOB_COMPLETION_INDEX=str(index), **environ)
    check([each.finish() for each in recorded(programs)], tmp_path / "out")


@pytest.mark.parametrize(("code", "queued"), [(143, ["requeue 77"]), (1, []), (0, [])])
def test_slurm_starts_again_what_the_time_limit_has_ended(programs, code, queued):
    told = programs / "told"
    told.touch()
    for name, text in {"srun": f"exit {code}", "scontrol": f'echo "$@" >> {told}'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    environ = {"SLURM_JOB_ID": "77", "PATH": f"{programs}:{os.environ['PATH']}"}
    assert subprocess.run(["/bin/sh", "-c", template("Slurm")], env=environ).returncode == code
    assert told.read_text().splitlines() == queued


@pytest.mark.slow
def test_slurm(tiny, programs, tmp_path):
    run_script(tiny(template("Slurm")), programs, SLURM_JOB_ID=str(free_ports(1)[0]))
    check([each.finish() for each in recorded(programs)], tmp_path / "out")
