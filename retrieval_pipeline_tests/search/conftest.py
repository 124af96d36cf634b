from collections.abc import Iterator

import pytest

from retrieval_pipeline.index.milvus.client import Client


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Milvus Lite, which takes a second to start."""
    pytest.importorskip("milvus_lite")
    with Client(str(tmp_path_factory.mktemp("milvus") / "engine.db")) as client:
        yield client
