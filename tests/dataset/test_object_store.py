import pytest

from library.dataset.storage import open_store, read_url
from library.errors import UnreachableError


@pytest.mark.slow  # s3fs tries again for some seconds
def test_object_store_stops_and_keeps_objects(bucket, object_store):
    store, path = open_store(f"{bucket}/a")
    store.pipe_file(path, b"1")
    object_store.stop()
    with pytest.raises(UnreachableError, match=bucket):
        read_url(f"{bucket}/a")
    object_store.start()
    assert read_url(f"{bucket}/a") == b"1"
