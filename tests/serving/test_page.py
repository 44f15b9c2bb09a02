import base64
import hashlib
import io
import re
import shutil
import subprocess

import pytest
from PIL import Image
from starlette.testclient import TestClient

from library.serving.application import make_application
from library.serving.page import content_security_policy, make_page
from library.serving.uploads import RequestLimits
from tests.conftest import COLORS
from tests.helpers.serving import EchoModel, RunningServer
from tests.serving.test_model import model  # noqa: F401

# Some systems have it under another name.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_page_escapes_the_description():
    page = make_page("a <b> & \x1b", 500)
    assert "a &lt;b&gt; &amp; \\x1b" in page
    assert 'data-max-bytes="500"' in page


def test_content_security_policy_has_all_hashes():
    policy = content_security_policy("<style>a</style><script>b</script><script>c</script>")
    assert policy.count("'sha256-") == 3
    assert "style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='" in policy


def test_page_runs_only_its_own_script():
    application = make_application(EchoModel(), RequestLimits(20, 30, 16))
    with TestClient(application) as client:
        answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "simple &lt;of&gt; 2 classes" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        (allowed,) = re.findall(f"{tag}-src ([^;]*)", policy)
        hashes = []
        for part in answer.text.split(f"<{tag}>")[1:]:
            text = part.split(f"</{tag}>")[0]
            hashes.append(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
        assert allowed.split() == [f"'sha256-{each}'" for each in hashes]
    # Nothing is loaded from elsewhere, and the policy would block inline styles and handlers.
    for word in ("http:", "https:", "//cdn", " style=", " onclick="):
        assert word not in answer.text


def choose_file(content):
    """Return a script that puts a file where a person would, and then asks for another class."""
    encoded = base64.b64encode(content).decode()
    return f"""<script>
const bytes = Uint8Array.from(atob("{encoded}"), each => each.charCodeAt(0));
const chosen = new DataTransfer();
chosen.items.add(new File([bytes], "chosen.png"));
element("file").files = chosen.files;
element("file").dispatchEvent(new Event("change"));
new MutationObserver(() => {{
  const blue = [...document.querySelectorAll("#classes button")]
    .find(each => each.textContent.startsWith("blue"));
  if (blue.getAttribute("aria-pressed") === "false") blue.click();
}}).observe(element("classes"), {{childList: true}});
</script></body>"""


def in_browser(tmp_path, served, content):
    page = make_page("simple, 3 classes", 500_000)
    # The page's own policy lets this script run, because it is counted among its scripts.
    page = page.replace("</body>", choose_file(content))
    with RunningServer(served, page, RequestLimits(0.5, 20, 16)) as running:
        done = subprocess.run(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--virtual-time-budget=20000",
                "--dump-dom",
                running.url,
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
def test_page_shows_classes_and_a_heat_map(tmp_path, model):  # noqa: F811
    content = io.BytesIO()
    Image.new("RGB", (60, 30), COLORS["red"]).save(content, "PNG")
    shown = in_browser(tmp_path, model, content.getvalue())
    assert re.search(r'<h2 id="verdict">red, \d+\.\d&nbsp;%</h2>', shown)
    assert re.search(r'aria-pressed="true" title="[^"]* blue"', shown)
    assert re.search(r"(Evidence|No evidence) for blue", shown)
    assert 'src="data:image/webp;base64,' in re.search('<img id="picture".*?>', shown)[0]
    assert 'src="data:image/png;base64,' in re.search('<img id="heat".*?>', shown)[0]
    assert "hidden" not in re.search('<section id="result".*?>', shown)[0]
    # The stage has the shape of the image.
    assert "min(100%, 56rem)" in shown


class ModifiedModel:
    """A model with another answer than the likeliest class."""

    name = description = "simple"

    def __init__(self, served, own):
        self.classes = served.classes
        self._served, self._own = served, own

    def explain(self, content, class_name):
        return {**self._served.explain(content, class_name), **self._own}


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
@pytest.mark.parametrize(
    ("own", "verdict"),
    [({"class": "unknown"}, "unknown"), ({"found": ["blue", "green"]}, "blue, green")],
)
def test_page_shows_another_answer_than_the_likeliest_class(tmp_path, model, own, verdict):  # noqa: F811
    content = io.BytesIO()
    Image.new("RGB", (60, 30), COLORS["red"]).save(content, "PNG")
    shown = in_browser(tmp_path, ModifiedModel(model, own), content.getvalue())
    assert re.search(
        rf'<h2 id="verdict">{verdict} \(most likely: red, \d+\.\d&nbsp;%\)</h2>', shown
    )


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
def test_page_shows_errors(tmp_path, model):  # noqa: F811
    shown = in_browser(tmp_path, model, b"not an image")
    assert "JPEG, PNG, GIF, BMP, TIFF or WebP image." in shown
    assert 'class="wrong"' in shown
    assert "hidden" in re.search('<section id="result".*?>', shown)[0]
