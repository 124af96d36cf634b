"""What several test modules share: photos, an indexed library, how the processes share the work."""

import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retrieval_pipeline_tests.support import forked_commands
from retrieval_pipeline_tests.support.engines import Engines
from retrieval_pipeline_tests.support.library import SHARED_DATA
from retrieval_pipeline_tests.support.processes import made_once, shared_directory
from retrieval_pipeline_tests.support.remembered import remember_network, remember_sentences
from retrieval_pipeline_tests.support.web import WebLibrary, make_library

if TYPE_CHECKING:
    import dagster

TESTS = Path(__file__).parent

# Each takes a gigabyte, and there are not many groups of tests.
MOST_PROCESSES = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--device cuda` runs the tests of encoders on a GPU."""
    parser.addoption("--device", default="cpu", help="on which the tests of encoders compute")


def pytest_configure() -> None:
    """Let programs that tests start hear Ctrl-C, also where pytest itself must not (`nohup`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process for each core and one more if all tests run; none beside this one for a few files.

    One more, since tests wait: for browsers, servers and Dagster's daemon.
    """
    everything = {*map(str, config.getini("testpaths")), str(config.rootpath), str(TESTS)}
    if not {arg.rstrip("/") for arg in config.args} <= everything:
        return 0
    return min(len(os.sched_getaffinity(0)) + 1, MOST_PROCESSES)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that have most slow tests, so that the processes end together."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True, scope="session")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The offline model is made once, and so are the vectors of the words that every model encodes.

    Commands that are forked read the vectors too.
    """
    directory = shared_directory(tmp_path_factory) / "sentences"
    directory.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patched:
        remember_sentences(directory, patched)
        remember_network(patched)
        patched.setattr(forked_commands, "sentences", directory)
        yield


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


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Makes indexes of made-up libraries, embedded and in Milvus."""
    engines = Engines(tmp_path_factory.mktemp("milvus"))
    yield engines
    engines.close()


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


@pytest.fixture
def put_key(s3_server: str) -> Callable[[str, str, bytes], None]:
    """Put an object with any key below a URL of `bucket`: clients would change some of them."""
    from moto.s3.models import s3_backends

    def put(url: str, key: str, data: bytes) -> None:
        name, _, prefix = url.partition("?")[0].removeprefix("s3://").partition("/")
        for account in s3_backends.values():
            for backend in account.values():
                if name in backend.buckets:
                    backend.put_object(name, f"{prefix}/{key}", data)
                    return
        raise AssertionError(f"there is no bucket {name}")

    return put


@pytest.fixture(scope="session")
def untouched_library(
    tmp_path_factory: pytest.TempPathFactory, sample_photos: dict[str, Path]
) -> WebLibrary:
    """An indexed library that all processes share, to be copied and nothing else."""
    root = shared_directory(tmp_path_factory) / "indexed library"
    return WebLibrary(made_once(root, lambda path: make_library(path, sample_photos)))


@pytest.fixture(scope="module")
def indexed_library(
    untouched_library: WebLibrary, tmp_path_factory: pytest.TempPathFactory
) -> WebLibrary:
    """A copy of the indexed library for one module, whose tests change nothing but votes."""
    return untouched_library.copied(tmp_path_factory.mktemp("indexed") / "library")


@pytest.fixture
def library(untouched_library: WebLibrary, tmp_path: Path) -> WebLibrary:
    """A copy of the indexed library for one test."""
    return untouched_library.copied(tmp_path / "library")
