import pytest
from fsspec.implementations.memory import MemoryFileSystem


@pytest.fixture
def memory_store(tmp_path, monkeypatch):
    """An empty store for memory:// URLs, and an empty disk for copies."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "disk"))
