import signal
import subprocess
import sys
import time


def run_until_ready(code):
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


WAIT = """
import time
from library.training.interruption import StopOnSignal
with StopOnSignal() as stop:
    print("ready", flush=True)
    while not stop.received{and_forever}:
        time.sleep(0.01)
error = stop.error("here")
print(error, error.exit_code)
"""


def test_the_first_signal_is_remembered():
    for number, text in (
        (signal.SIGINT, "interrupted here; the state is saved: start again to go on 130"),
        (signal.SIGTERM, "terminated here; the state is saved: start again to go on 143"),
    ):
        process = run_until_ready(WAIT.format(and_forever=""))
        process.send_signal(number)
        assert process.communicate(timeout=20)[0].strip() == text


def test_a_second_signal_ends_at_once():
    process = run_until_ready(WAIT.format(and_forever=" or True"))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == -signal.SIGINT
    process.communicate()
