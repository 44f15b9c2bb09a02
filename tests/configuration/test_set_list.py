"""--list_sets."""

from project.settings import read_settings
from tests.project.test_settings import files


def test_list_sets(tmp_path):
    project = "default: &default {batch_size: 5}\n.x: &x {xla: true}\nbig:\n  <<: [*x, *default]\n"
    recipes = "default:\nslow:\n  learning_rate: 1e-5\n  augmentations: [flip, pad=2]\n"
    given = files(tmp_path, project + "  image_size: 3\n", recipes)
    assert read_settings([*given, "--config_set=big", "--list_sets"]).answer == (
        f"""\
{tmp_path}/p.yaml
  default  line 1
      batch_size: 5
* big      line 3, inherits .x, default
      image_size: 3

{tmp_path}/h.yaml
* default  line 1
      nothing of its own
  slow     line 2
      learning_rate: 1.0e-05, augmentations: [flip, pad=2]"""
    )
