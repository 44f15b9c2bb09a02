from library.training.run_folder import start_run_folder


def test_the_settings_are_written(tmp_path):
    assert start_run_folder(tmp_path / "run", {"a.yaml": "1"}, "auto") is None
    assert start_run_folder(tmp_path / "run", {"a.yaml": "2"}, "auto") is None
    assert (tmp_path / "run" / "a.yaml").read_text() == "2"


def test_never_moves_the_earlier_run_aside_whole(tmp_path):
    for number in (0, 1, 2):
        aside = start_run_folder(tmp_path / "run", {"a.yaml": str(number)}, "never")
        assert aside == (tmp_path / f"run.{number}" if number else None)
    assert (tmp_path / "run.1" / "a.yaml").read_text() == "0"
    assert (tmp_path / "run.2" / "a.yaml").read_text() == "1"
    assert (tmp_path / "run" / "a.yaml").read_text() == "2"
