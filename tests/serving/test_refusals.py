import json

import pytest

from library.serving.refusals import STATUSES, RefusedError


def test_a_refusal_is_a_word_a_sentence_and_a_status():
    error = RefusedError("too_large", "the upload has more than 20 MB")
    assert error.status == 413
    assert json.loads(json.dumps(error.body)) == {
        "error": "too_large",
        "message": "the upload has more than 20 MB",
    }


def test_every_status_is_an_error_and_every_word_known():
    assert all(400 <= each < 600 for each in STATUSES.values())
    with pytest.raises(KeyError):
        RefusedError("nonsense", "")
