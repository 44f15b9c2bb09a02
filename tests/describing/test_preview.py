from PIL import Image

import run
from library.errors import run_main


def test_preview_writes_png_and_tensorboard_events(capsys, options, tmp_path):
    arguments = ["preview", *options, "--augmentations", "flip,mixup"]
    assert run_main(run.main, arguments, "run.py") == 0
    path = capsys.readouterr().out.strip()
    assert path == str(tmp_path / "run" / "preview.png")
    with Image.open(path) as sheet:
        assert sheet.width > 700
    assert list((tmp_path / "run" / "logs").glob("events.*"))
