"""The served page of suspects: what is answered, to whom, and what keys do in a browser."""

import re
import shutil
import subprocess

import pytest
from starlette.testclient import TestClient

import run
from library.cleaning.decisions import Review
from library.dataset.corrections import read_corrections
from library.errors import run_main
from library.serving import server
from library.serving.review import make_review_application
from tests.cleaning.conftest import folder, make_suspects, write_folder  # noqa: F401
from tests.helpers.serving import RunningServer

# Some systems have it under another name.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(folder):  # noqa: F811
    application = make_review_application(Review(folder), server.allowed_hosts("127.0.0.1"))
    with TestClient(application, base_url="http://127.0.0.1") as client:
        yield client


def request(client, **changed):
    version = client.get("/decisions").json()["version"]
    expected = {"action": "undecided", "labels": []}
    decision = {"id": 1, "action": "relabel", "labels": ["red"], "expected": expected}
    return {"version": version, **decision, **changed}


def test_decision_is_answered_with_the_state(client, folder):  # noqa: F811
    answer = client.post("/decisions", json=request(client))
    assert answer.status_code == 200
    assert answer.json() == client.get("/decisions").json()
    assert answer.json()["decisions"] == {"1": {"action": "relabel", "labels": ["red"]}}
    assert '"decisions": {"1":' in client.get("/").text
    assert read_corrections(folder / "corrections.csv")[0][0].new_label == "red"
    # Made again in another window that has not seen it.
    again = client.post("/decisions", json=request(client, action="drop", labels=[]))
    assert again.status_code == 409
    assert again.json()["decisions"]["1"]["action"] == "relabel"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Content-Type": "text/plain"}, 415),
        ({"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_cannot_decide(client, folder, headers, status):  # noqa: F811
    answer = client.post("/decisions", json=request(client), headers={**JSON, **headers})
    assert answer.status_code == status
    assert (folder / "corrections.csv").exists() == (status == 200)


@pytest.mark.parametrize(
    ("content", "status"), [(b"{", 422), (b"[]", 422), (b"[" * 9999, 422), (b"1" * (1 << 19), 413)]
)
def test_requests_that_are_no_decisions_are_refused(client, content, status):
    answer = client.post("/decisions", content=content, headers=JSON)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "message"}


def test_decision_that_cannot_be_saved_is_an_error(client, folder):  # noqa: F811
    decision = request(client)
    (folder / "corrections.csv").write_text("file,action\na.png,drip\n")
    answer = client.post("/decisions", json=decision)
    assert (answer.status_code, answer.json()["error"]) == (500, "not_saved")
    assert "line 2" in answer.json()["message"]


def test_only_thumbnails_are_served(client, folder):  # noqa: F811
    (folder / "thumbnails" / ".hidden.jpg").touch()
    found = client.get("/thumbnails/0.jpg")
    assert (found.status_code, found.headers["content-type"]) == (200, "image/jpeg")
    assert found.headers["cross-origin-resource-policy"] == "same-origin"
    for name in ("9.jpg", "..%2fsuspects.json", "%2e%2e", ".hidden.jpg", "%00", ""):
        assert client.get(f"/thumbnails/{name}").status_code == 404


def test_page_loads_only_its_own_images_and_script(client):
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "img-src 'self' data:;" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy


KEYS = """<script>
const wait = async isDone => { while (!isDone()) await new Promise(go => setTimeout(go, 20)); };
(async () => {
  for (const [key, count] of KEYS) {
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    await wait(() => !pending.size && saved.size === count);
  }
  element("query").value = "gre";
  element("query").dispatchEvent(new Event("input"));
  document.querySelector("#search button").click();
  await wait(() => !pending.size && saved.size === 4);
  document.body.dataset.done = "yes";
})();
</script></body>"""


class ScriptedReview(Review):
    """A review whose page presses keys."""

    script = ""

    def render(self):
        return super().render().replace("</body>", self.script)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
def test_keys_decide_in_a_browser(tmp_path):
    folder = write_folder(tmp_path / "cleaning", make_suspects(4))  # noqa: F811
    review = ScriptedReview(folder)
    keys = [["a", 1], ["k", 2], ["d", 3], ["u", 2], ["2", 3], ["/", 3]]
    review.script = KEYS.replace("KEYS", str(keys))
    application = make_review_application(review, server.allowed_hosts("127.0.0.1"))
    with RunningServer(application=application) as running:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000"]
        shown = subprocess.run(
            [*command, running.url], capture_output=True, text=True, timeout=120, check=True
        ).stdout
    assert 'data-done="yes"' in shown
    assert "4 of 4 decided" in shown
    assert re.search(r'id="error"[^>]* hidden', shown)
    found, _ = read_corrections(folder / "corrections.csv")
    assert [(each.file[:6], each.action, each.new_label) for each in found] == [
        ("blue/0", "relabel", "red"),
        ("blue/1", "keep", ""),
        ("blue/2", "relabel", "green"),
        ("blue/3", "relabel", "green"),
    ]


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        (["--host", "0.0.0.0"], 2, "host: 0.0.0.0 is reachable"),
        ([], 3, "python run.py clean"),
    ],
)
def test_serve_clean_names_what_it_needs(tmp_path, capsys, options, code, named):
    arguments = ["serve", "--clean", "--run_dir", str(tmp_path), *options]
    assert run_main(run.main, arguments, "run.py") == code
    assert named in capsys.readouterr().err
