"""Embedding on a real local Ray: the tables are those of the process, whatever dies."""

import functools
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrieval_pipeline.config.settings import RaySettings, Settings
from retrieval_pipeline.config.validation import with_ray
from retrieval_pipeline.encoders.base import BaseEncoder, Encoder, ThreadPlan
from retrieval_pipeline.encoders.from_settings import describe_encoder, load_settings_encoder
from retrieval_pipeline.encoders.load import describe
from retrieval_pipeline.errors import EncoderError, Stopped
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.transform import Pixels
from retrieval_pipeline.ingest import part_writer
from retrieval_pipeline.ingest import ray_backend as ray_embed
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import EmbedOptions, EmbedReport, update_embeddings
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.orchestration.metadata import embedding_metadata
from retrieval_pipeline.storage.remote import Remote
from retrieval_pipeline.storage.schemas import embedding_schema, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_facts, read_quarantine, read_table
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline_tests.support.library import settings_of

ray = pytest.importorskip("ray", reason='the extra "ray" is not installed')

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A small Ray on this machine for all tests here."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # By default 30 s, which are few on a machine that does much else.
    os.environ["RAY_gcs_server_port_wait_time_s"] = "60"  # noqa: SIM112, Ray's spelling
    for attempt in range(3):
        try:
            ray.init(
                "local",
                num_cpus=2,
                object_store_memory=100_000_000,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
            break
        except RuntimeError as error:
            # Once in a while the first of its processes ends before it writes a log.
            if attempt == 2 or "gcs_server_port" not in str(error):
                raise
            ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture
def pictures(sample_photos: dict[str, Path], tmp_path: Path) -> Path:
    """Photographs, a copy of one, and what is no picture."""
    root = tmp_path / "pictures"
    root.mkdir()
    for name, photo in sample_photos.items():
        shutil.copy(photo, root / f"{name}{photo.suffix}")
    shutil.copy(sample_photos["cat"], root / "again.png")
    (root / os.fsdecode(b"bad-\xff-name.jpg")).write_bytes(b"no picture at all")
    return root


@pytest.fixture
def settings(pictures: Path, tmp_path: Path) -> Settings:
    here = settings_of(tmp_path / "home", pictures=pictures)
    return here.model_copy(update={"ray": RaySettings(decoders=1)})


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_embed, "CPU_ROWS", 2)
    monkeypatch.setattr(part_writer, "PART_ROWS", 2)


def embed_all(
    settings: Settings, load: Callable[[], Encoder] | None = None, **options: object
) -> EmbedReport:
    """Look through the one source and embed it where the settings say."""
    store, source = Store(settings.home), settings.sources[0]
    update_manifest(store, source)
    description = describe_encoder(settings)
    backend = None
    load = load or functools.partial(load_settings_encoder, settings, description.space)
    if settings.ray is not None:
        backend = functools.partial(
            ray_embed.embedded_by_ray,
            description=description,
            load=load,
            limits=Limits(),
            settings=settings.ray,
        )
    return update_embeddings(
        store,
        source,
        description,
        load,
        EmbedOptions(backend=backend),
        **options,  # type: ignore[arg-type]
    )


def rows_of(settings: Settings) -> tuple[pa.Table, Vectors, list[dict[str, object]]]:
    """Return all rows but the vectors, the vectors, and the quarantine but its times."""
    store, space = Store(settings.home), describe_encoder(settings).space
    parts = [read_table(part, embedding_schema(space.dim)) for part in store.parts(space)]
    table = pa.concat_tables(parts)
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, space.dim)
    quarantine = read_quarantine(store, space, settings.source_names[0]).to_pylist()
    for row in quarantine:
        del row["last_tried"]
    return table.drop_columns("embedding"), vectors, quarantine


def in_process(settings: Settings) -> Settings:
    """The same sources, embedded here and into another home."""
    home = settings.home.with_name("home-here")
    return settings.model_copy(update={"ray": None, "home": home})


def views_of(settings: Settings) -> tuple[pa.Table, Vectors]:
    """Return all rows of further views but their vectors, and the vectors."""
    store, space = Store(settings.home), describe_encoder(settings).space
    parts = [read_table(part, views_schema(space.dim)) for part in store.view_parts(space)]
    table = pa.concat_tables(parts)
    vectors = table["embedding"].combine_chunks().flatten().to_numpy()
    return table.drop_columns("embedding"), vectors


def test_ray_writes_row_for_row_what_the_process_writes_whatever_dies(
    settings: Settings, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (90, 30), "teal").save(pictures / "wide.png")
    monkeypatch.setattr(ray_embed, "CPU_ROWS", 2)
    monkeypatch.setattr(ray_embed, "Decoder", DeadlyDecoder)
    died = tmp_path / "encoder-died"
    space = describe_encoder(settings).space
    far = embed_all(settings, functools.partial(load_deadly, settings, space, died))
    assert (tmp_path / DeadlyDecoder.DIED).exists() and died.exists()
    here = embed_all(in_process(settings))
    assert (far.embedded, far.duplicates, far.quarantined, far.views) == (8, 1, 1, 4)
    assert (far.files, far.known, far.left) == (here.files, here.known, here.left)
    # What each machine did comes back with its results; what died with an actor does not count.
    assert list(far.machines) == [socket.gethostname()] and not here.machines
    (work,) = far.machines.values()
    assert (work.decoded, work.encoded) == (9, 8)
    assert work.decode_seconds > 0 and work.encode_seconds > 0
    store = Store(settings.home)
    shown = embedding_metadata(Flow(), store, settings, space, far, pictures=False)
    (row,) = shown["machines"].records
    assert (row.data["machine"], row.data["encoded"]) == (socket.gethostname(), 8)
    (rows, vectors, failed), expected = rows_of(settings), rows_of(in_process(settings))
    assert rows.equals(expected[0])
    np.testing.assert_allclose(vectors, expected[1], atol=1e-5)
    assert failed == expected[2] and failed[0]["reason"] == "not_an_image"
    (views, of_views), (views_here, of_views_here) = (
        views_of(each) for each in (settings, in_process(settings))
    )
    assert views.equals(views_here)
    np.testing.assert_allclose(of_views, of_views_here, atol=1e-5)
    facts, facts_here = (
        read_facts(Store(each.home), settings.source_names[0])
        for each in (settings, in_process(settings))
    )
    assert len(facts) == 9
    assert facts.equals(facts_here)


def test_a_run_that_was_stopped_goes_on_without_duplicates_also_without_ray(
    settings: Settings, small_batches: None
) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped, match="2 images are kept"):
        embed_all(settings, load_colours, stop=stop)
    report = embed_all(settings.model_copy(update={"ray": None}), load_colours)
    assert (report.known, report.embedded) == (2, 5)
    contents = rows_of(settings)[0]["content_id"].to_pylist()
    assert len(contents) == len(set(contents)) == 7


def test_pictures_in_a_bucket_are_embedded_by_actors(
    settings: Settings, bucket: Callable[[str], str], sample_photos: dict[str, Path]
) -> None:
    root = Remote(bucket("pictures"))
    (root / "deep/cat.png").upload(sample_photos["cat"])
    source = settings.sources[0].model_copy(update={"path": root})
    report = embed_all(settings.model_copy(update={"sources": (source,)}), load_colours)
    assert report.embedded == 1


def test_what_an_actor_cannot_do_is_one_line(settings: Settings) -> None:
    with pytest.raises(EncoderError, match=r"^on Ray: no such model here$"):
        embed_all(settings, load_nothing)


def test_a_machine_with_another_model_is_refused() -> None:
    actor = ray_embed.ImageEncoder(load_colours, describe("offline", precision="reference").space)
    with pytest.raises(EncoderError, match="has another version of offline"):
        actor(ray_embed.RESULTS.empty_table())


def test_without_ray_the_message_names_the_extra(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EncoderError, match=r"pip install .*\[ray\]"):
        embed_all(settings)


def load_nothing() -> Encoder:
    raise EncoderError("no such model here")


def test_a_cluster_that_is_not_there_is_one_line(settings: Settings) -> None:
    ray.shutdown()
    with pytest.raises(EncoderError, match=r'no Ray cluster at "auto".*ray start --head'):
        embed_all(with_ray(settings, "auto"))


class DeadlyDecoder(ray_embed.Decoder):
    """Decodes, but the first time its process is killed."""

    DIED = "decoder-died"

    def __call__(self, table: pa.Table) -> pa.Table:
        """Decode a batch of pictures, beside whose directory it is written that one has died."""
        died = Path(os.fsdecode(table["path"][0].as_py())).parents[1] / self.DIED
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(table)


class Colours(BaseEncoder):
    """Vectors of the colours in a corner: no model to load, the same from process to process."""

    def encode_threads(self) -> AbstractContextManager[ThreadPlan]:
        return nullcontext(ThreadPlan(1, lambda: None))

    def _image_features(self, pixels: Sequence[Pixels]) -> Vectors:
        return np.stack([each[:8, :16].reshape(-1) + np.float32(1) for each in pixels])

    def _text_features(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError


def load_colours() -> Encoder:
    return Colours(describe("offline"), batch=4)


def load_deadly(settings: Settings, space: VectorSpace, died: Path) -> Encoder:
    """Kill the process that loads the encoder for its first batch, the first time."""
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return load_settings_encoder(settings, space)
