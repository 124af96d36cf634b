"""What several test modules share: the optional folder of real photos and odd files."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retrieval_pipeline_tests.support.web import WebLibrary, make_library

if TYPE_CHECKING:
    import dagster

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos and odd files that developers have at hand; absent on a user's machine."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the folder of test photos is not there: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sample_photos() -> dict[str, Path]:
    """Real photographs that scikit-image and scikit-learn carry."""
    import skimage
    import sklearn

    photos = Path(skimage.__file__).parent / "data"
    more = Path(sklearn.__file__).parent / "datasets" / "images"
    return {
        "cat": photos / "chelsea.png",
        "coffee": photos / "coffee.png",
        "rocket": photos / "rocket.jpg",
        "astronaut": photos / "astronaut.png",
        "motorcycle": photos / "motorcycle_left.png",
        "flower": more / "flower.jpg",
        "temple": more / "china.jpg",
    }


@pytest.fixture
def instance() -> Iterator["dagster.DagsterInstance"]:
    """A Dagster of one test's own."""
    import dagster

    with dagster.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server on the loopback interface: moto's, which keeps what it is given in memory."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    server = server_module.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A new bucket: from a prefix to the URL that a settings file would name."""
    from pyarrow.fs import S3FileSystem

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    S3FileSystem(
        endpoint_override=s3_server, scheme="http", region="us-east-1", allow_bucket_creation=True
    ).create_dir(name)
    options = f"endpoint_override={s3_server}&scheme=http&region=us-east-1"
    return lambda prefix: f"s3://{name}/{prefix}?{options}"


@pytest.fixture(scope="session")
def indexed_library(
    tmp_path_factory: pytest.TempPathFactory, sample_photos: dict[str, Path]
) -> WebLibrary:
    """An indexed library that all tests share; nobody may change it."""
    return make_library(tmp_path_factory.mktemp("web") / "library", sample_photos)


@pytest.fixture
def library(indexed_library: WebLibrary, tmp_path: Path) -> WebLibrary:
    """A copy of the indexed library for one test."""
    return indexed_library.copied(tmp_path / "library")
