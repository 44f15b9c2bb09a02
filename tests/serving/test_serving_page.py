import base64
import io
import re
import shutil
import subprocess

import pytest
from PIL import Image

from library.serving.serving_page import make_page, policy_of
from library.serving.uploads import Limits
from tests.conftest import COLORS
from tests.serving.test_model import model  # noqa: F401
from tests.serving.test_server import Running

# Some systems have it under another name.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_what_is_served_is_shown_as_it_is():
    page = make_page("a <b> & \x1b", 500)
    assert "a &lt;b&gt; &amp; \\x1b" in page
    assert "data-bytes=500" in page


def test_each_script_and_style_of_a_page_is_allowed_by_its_hash():
    policy = policy_of("<style>a</style><script>b</script><script>c</script>")
    assert policy.count("'sha256-") == 3
    assert "style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='" in policy


def choose_file(content):
    """Return a script that puts a file where a person would, and then asks for another class."""
    encoded = base64.b64encode(content).decode()
    return f"""<script>
const bytes = Uint8Array.from(atob("{encoded}"), each => each.charCodeAt(0));
const chosen = new DataTransfer();
chosen.items.add(new File([bytes], "chosen.png"));
at("file").files = chosen.files;
at("file").dispatchEvent(new Event("change"));
new MutationObserver(() => {{
  const blue = [...document.querySelectorAll("#classes button")]
    .find(each => each.textContent.startsWith("blue"));
  if (blue.getAttribute("aria-pressed") === "false") blue.click();
}}).observe(at("classes"), {{childList: true}});
</script></body>"""


def in_browser(tmp_path, served, content):
    page = make_page("simple, 3 classes", 500_000)
    # The page's own policy lets this script run, because it is counted among its scripts.
    page = page.replace("</body>", choose_file(content))
    with Running(served, page, Limits(0.5, 20)) as running:
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
def test_a_browser_shows_classes_and_heat_for_a_picture(tmp_path, model):  # noqa: F811
    content = io.BytesIO()
    Image.new("RGB", (60, 30), COLORS["red"]).save(content, "PNG")
    shown = in_browser(tmp_path, model, content.getvalue())
    assert re.search(r'<h2 id="verdict">red, \d+\.\d&nbsp;%</h2>', shown)
    assert re.search(r'aria-pressed="true" title="[^"]* blue"', shown)
    assert re.search(r"(What speaks|Nothing speaks) for blue", shown)
    assert 'src="data:image/webp;base64,' in re.search('<img id="picture".*?>', shown)[0]
    assert 'src="data:image/png;base64,' in re.search('<img id="heat".*?>', shown)[0]
    assert '<section id="result" aria-label="Answer">' in shown
    # Wide as the picture is: the stage follows its shape.
    assert "min(100%, 56rem)" in shown


class Doubtful:
    """PredictionFormatter as a model does, but for the class."""

    name = subject = "simple"

    def __init__(self, served, own):
        self.classes = served.classes
        self._served, self._own = served, own

    def explain(self, content, name):
        return {**self._served.explain(content, name), **self._own}


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
@pytest.mark.parametrize(
    ("own", "verdict"),
    [({"class": "unknown"}, "unknown"), ({"found": ["blue", "green"]}, "blue, green")],
)
def test_a_browser_shows_another_answer_than_the_likeliest_class(tmp_path, model, own, verdict):  # noqa: F811
    content = io.BytesIO()
    Image.new("RGB", (60, 30), COLORS["red"]).save(content, "PNG")
    shown = in_browser(tmp_path, Doubtful(model, own), content.getvalue())
    assert re.search(rf'<h2 id="verdict">{verdict} \(likeliest: red, \d+\.\d&nbsp;%\)</h2>', shown)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")
def test_a_browser_says_what_is_wrong_with_an_upload(tmp_path, model):  # noqa: F811
    shown = in_browser(tmp_path, model, b"no picture")
    assert "The upload is no JPEG, PNG, GIF, BMP, TIFF or WebP image." in shown
    assert 'class="wrong"' in shown
    assert "hidden" in re.search('<section id="result".*?>', shown)[0]
