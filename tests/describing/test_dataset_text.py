from library.describing.dataset_text import duplicate_lists, imbalance, text
from tests.describing.test_dataset_summary import folder, inspected

__all__ = ["folder"]


def test_all_findings_are_told(folder):
    with inspected(folder, "train", "test") as found:
        lines = text(found).splitlines()
    assert lines[0].split() == ["train", "test"]
    assert ["red", "6", "4"] in [line.split() for line in lines]
    assert any(line.split()[:4] == ["up", "to", "32", "px"] for line in lines)
    assert "the same file in several splits (a leak): 1" in lines
    assert "the same file with different labels: 1" in lines
    assert "  train/red/x.png is not a JPEG, PNG, GIF, BMP, TIFF or WebP image" in lines


def test_a_group_is_listed_once_under_the_worst(folder):
    with inspected(folder, "train", "test") as found:
        lists = duplicate_lists(found)
    assert [len(groups) for _, groups in lists[:3]] == [1, 1, 0]


def test_imbalance_in_words():
    assert imbalance({"a": 30, "b": 10}) == "'a' is 3.0 times as large as 'b'"
    assert imbalance({"a": 3, "b": 3}) == "all classes are equally large"
    assert imbalance({"a": 3, "b": 0}) == "'b' has none"


def test_odd_names_stay_on_their_line(tmp_path, folder):
    (tmp_path / "train" / "red" / "a\nb.png").write_bytes(b"rubbish")
    with inspected(folder, "train") as found:
        assert r"  train/red/a\nb.png is not a JPEG" in text(found)
