import importlib

import numpy as np
import pytest
from PIL import Image

from library.errors import run_main
from tests.conftest import ROOT
from tests.helpers.jpeg_variants import PLAIN, UNUSUAL_SAMPLING, WITH_STRAY_BYTES, waves
from tests.helpers.tiff_variants import FLOAT, encode_tiff
from tests.suites import run


@pytest.fixture
def folder(tmp_path):
    """Images of several kinds, two of which are rejected, as decided."""
    folder = tmp_path / "foreign" / "inner"
    folder.mkdir(parents=True)
    pixels = waves(48, 32)
    (folder / "plain.jpg").write_bytes(PLAIN)
    (folder / "stray.jpg").write_bytes(WITH_STRAY_BYTES["stray bytes, turned"])
    (folder / "sampling.jpg").write_bytes(next(iter(UNUSUAL_SAMPLING.values())))
    (folder / "half.jpg").write_bytes(PLAIN[:-300] + b"\xff\xd9")
    (folder / "color.tif").write_bytes(encode_tiff(pixels))
    (folder / "float.tif").write_bytes(encode_tiff(pixels.astype("f4"), sample_format=FLOAT))
    Image.fromarray(pixels).convert("RGBA").save(folder / "alpha.png")
    (folder / "name with spaces, and 'é'.webp").write_bytes((folder / "alpha.png").read_bytes())
    return folder.parent


@pytest.mark.slow
def test_runner_finds_no_problem_in_conversion(folder, capsys):
    assert run.main([str(folder), "--only_conversion"]) == 0
    assert "8 files, 2 of them rejected" in capsys.readouterr().out


@pytest.mark.slow
def test_runner_finds_no_problem_in_training(folder, capsys, monkeypatch):
    def start(_, program, words):
        """Run in this process, which has imported TensorFlow."""
        main = importlib.import_module(program.removesuffix(".py")).main
        code = run_main(main, words, program)
        return code, "".join(capsys.readouterr())

    monkeypatch.setattr(run.Suite, "start", start)
    monkeypatch.chdir(ROOT)
    code = run.main([str(folder)])
    assert code == 0, capsys.readouterr().out


def test_runner_reports_other_pixels_and_untrue_reasons(tmp_path):
    suite = run.Suite(tmp_path, min_psnr=15)
    path = tmp_path / "image.png"
    Image.fromarray(waves(48, 32)).save(path)
    suite.sources = {"even/image.png": path}
    suite._check_image("even/image.png", PLAIN)
    Image.fromarray(255 - waves(48, 32)).save(path)
    suite._check_image("even/image.png", PLAIN)
    suite.rejected = {"even/image.png": "is not an image"}
    suite.check_reasons()
    suite.rejected = {"even/image.png": "has samples whose range is unknown"}
    suite.check_reasons()
    assert len(suite.problems) == 2
    assert "dB" in suite.problems[0]
    assert "Pillow and OpenCV" in suite.problems[1]


def test_runner_reports_tracebacks_and_exit_codes(tmp_path):
    suite = run.Suite(tmp_path, min_psnr=30)
    suite.run("convert_dataset.py", "--no_such_option")
    suite.run("convert_dataset.py", "--no_such_option", codes=(2,))
    assert len(suite.problems) == 1
    assert "exit code 2" in suite.problems[0]


def test_runner_compares_predictions_with_evaluation(tmp_path):
    suite = run.Suite(tmp_path, min_psnr=30)
    line = {"file": f"{tmp_path}/images/train/even/1.png", "class": "even"}
    line["top"] = [{"class": "even", "probability": 0.5}, {"class": "odd", "probability": 0.5}]
    loss = float(np.log(2))
    suite._compare([line], {"images": 1, "loss": loss, "accuracy": 1.0})
    assert not suite.problems
    suite._compare([line], {"images": 1, "loss": loss + 0.01, "accuracy": 1.0})
    suite._compare([line], {"images": 1, "loss": loss, "accuracy": 0.0})
    suite._compare([line], {"images": 2, "loss": loss, "accuracy": 1.0})
    refused = {"file": line["file"], "error": "no"}
    suite._compare([line, refused], {"images": 1, "loss": loss, "accuracy": 1.0})
    assert len(suite.problems) == 4
