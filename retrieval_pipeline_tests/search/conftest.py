import pytest

from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline_tests.support.engines import Engines


@pytest.fixture(scope="session")
def client(engines: Engines) -> Client:
    """Milvus Lite."""
    return engines.client
