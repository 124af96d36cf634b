"""Embedding files of a directory with an encoder that has no model; the decode workers are real."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.errors import EncoderError, Stopped
from retrieval_pipeline.facts.model import ReadFacts
from retrieval_pipeline.images import decode_pool as decode
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.transform import Pixels
from retrieval_pipeline.ingest import part_writer
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import (
    EmbedOptions,
    EmbedReport,
    damaged_ids,
    embedded_ids,
    update_embeddings,
)
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.schemas import embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_quarantine, read_table
from retrieval_pipeline_tests.support.encoders import DESCRIPTION, SPACE, MeanColour


class Library:
    """A directory of pictures and the tables made of it."""

    def __init__(self, root: Path) -> None:
        self.pictures = root / "pictures"
        self.pictures.mkdir()
        self.store = Store(root / "home")
        self.source = Source(name="pictures", path=self.pictures)

    def add(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            colour = (200, number, 10)
            Image.new("RGB", (16, 10), colour).save(self.pictures / f"{number:03}.png")

    def crawl(self) -> None:
        update_manifest(self.store, self.source, max_shrink=1.0)

    def embed(
        self,
        load: Callable[[], Encoder] = MeanColour,
        limits: Limits | None = None,
        stop: threading.Event | None = None,
        workers: int = 2,
    ) -> EmbedReport:
        options = EmbedOptions(limits or Limits(), workers)
        report = update_embeddings(self.store, self.source, DESCRIPTION, load, options, stop=stop)
        known = report.embedded + report.known + report.duplicates + report.quarantined
        assert report.files == known + report.left + report.companions
        return report

    def reasons(self) -> list[str]:
        return read_quarantine(self.store, SPACE, "pictures")["reason"].to_pylist()


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


def test_every_file_is_counted_once_and_the_parts_hold_what_was_embedded(library: Library) -> None:
    library.add(10)
    (library.pictures / "copy.png").write_bytes((library.pictures / "000.png").read_bytes())
    (library.pictures / "text.png").write_text("no picture")
    library.crawl()
    report = library.embed()
    assert (report.embedded, report.duplicates, report.quarantined) == (10, 1, 1)
    assert len(embedded_ids(library.store, SPACE)) == 10
    assert library.embed().known == 10


@pytest.mark.slow
def test_a_companion_is_embedded_when_the_file_it_belongs_to_is_gone_or_cannot_be_used(
    library: Library,
) -> None:
    library.add(2)
    shown, raw = library.pictures / "P1.jpg", library.pictures / "P1.NEF"
    (library.pictures / "000.png").rename(shown)
    (library.pictures / "001.png").rename(raw)
    library.crawl()
    report = library.embed()
    assert (report.files, report.embedded, report.companions) == (2, 1, 1)
    data = shown.read_bytes()
    shown.unlink()
    library.crawl()
    assert library.embed().embedded == 1
    shown.write_bytes(data[:30])
    library.crawl()
    assert library.embed().quarantined == 1
    again = library.embed()
    assert (again.known, again.companions, again.quarantined) == (1, 0, 1)
    shown.write_bytes(data)
    library.crawl()
    library.source = library.source.model_copy(update={"group": False})
    library.crawl()
    assert library.embed().companions == 0


def test_a_directory_of_broken_pictures_loads_a_model_and_writes_no_part(library: Library) -> None:
    for number in range(9):
        (library.pictures / f"{number}.jpg").write_text(f"no picture {number}")
    library.crawl()
    report = library.embed()
    assert (report.embedded, report.quarantined) == (0, 9)
    assert library.store.parts(SPACE) == []


def test_a_picture_without_a_vector_is_quarantined(library: Library) -> None:
    library.add(5)
    Image.new("RGB", (20, 10)).save(library.pictures / "black.png")
    library.crawl()
    report = library.embed()
    assert (report.embedded, report.quarantined) == (5, 1)
    assert library.reasons() == ["unsupported"]


def test_a_picture_that_explodes_in_memory_costs_itself_alone(library: Library) -> None:
    library.add(5)
    Image.new("1", (20_000, 20_000)).save(library.pictures / "bomb.png")
    library.crawl()
    report = library.embed(limits=Limits(pixels=500_000_000, memory_mb=250))
    assert (report.embedded, report.quarantined) == (5, 1)
    assert library.reasons() == ["too_large"]


def test_workers_that_are_killed_cost_no_picture(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add(20)
    library.crawl()
    prepare = decode.Worker.prepare
    killed: dict[int, int] = {}

    # A thread asks a second worker for the picture of one that was killed, which must live.
    def kill_the_first(self: decode.Worker, limits: Limits) -> None:
        prepare(self, limits)
        if threading.get_ident() not in killed:
            os.kill(self.pid, signal.SIGKILL)
            killed[threading.get_ident()] = self.pid

    monkeypatch.setattr(decode.Worker, "prepare", kill_the_first)
    assert library.embed().embedded == 20
    assert killed


def test_a_device_that_fails_costs_nothing_that_was_finished(library: Library) -> None:
    library.add(40)
    library.crawl()
    calls: list[int] = []

    def fail_later(pixels: Sequence[Pixels]) -> None:
        calls.append(len(pixels))
        if len(calls) > 5:
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(EncoderError, match="the device failed"):
        library.embed(lambda: MeanColour(batch=4, threads=1, before=fail_later))
    assert len(embedded_ids(library.store, SPACE)) == 5 * 4
    report = library.embed()
    assert (report.known, report.embedded) == (20, 20)


def test_a_directory_that_grows_and_changes_meanwhile_is_finished_by_the_next_run(
    library: Library,
) -> None:
    library.add(12)
    library.crawl()

    def load() -> Encoder:
        library.add(3, first=100)
        return MeanColour()

    # Later than the look-ahead could read it.
    Image.new("RGB", (20, 10), "red").save(library.pictures / "011.png")
    (library.pictures / "010.png").unlink()
    report = library.embed(load)
    assert (report.embedded, report.left) == (10, 2)
    library.crawl()
    report = library.embed()
    assert (report.embedded, report.known, report.left) == (4, 10, 0)


def test_the_model_is_loaded_while_pictures_are_decoded(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add(3)
    library.crawl()
    started: list[int] = []
    prepare = decode.Worker.prepare

    def note(self: decode.Worker, limits: Limits) -> None:
        prepare(self, limits)
        started.append(self.pid)

    monkeypatch.setattr(decode.Worker, "prepare", note)

    def load() -> Encoder:
        while not started:
            pass
        return MeanColour()

    assert library.embed(load).embedded == 3


def test_vectors_meet_their_files_in_parts_of_any_size(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add(25)
    library.crawl()
    monkeypatch.setattr(part_writer, "PART_ROWS", 6)
    assert library.embed(lambda: MeanColour(batch=4)).embedded == 25
    parts = library.store.parts(SPACE)
    assert len(parts) == 4
    rows = read_manifest(library.store, "pictures").to_pylist()
    paths = {row["content_id"]: row["path"] for row in rows}
    for part in parts:
        for row in read_table(part, embedding_schema(3)).to_pylist():
            number = int(paths[row["content_id"]].removesuffix(".png"))
            vector = np.array([200, number, 10])
            np.testing.assert_allclose(row["embedding"], vector / np.linalg.norm(vector), atol=1e-3)


def test_the_report_tells_where_the_time_went(library: Library) -> None:
    library.add(20)
    library.crawl()
    timings = library.embed().timings
    assert timings is not None
    assert timings.decode.width == timings.encode.width == 2
    assert timings.decode.computing > 0
    assert timings.hint.startswith(timings.bound)
    assert library.embed().timings is None


class Freezer:
    """Stops the first worker that gets 001.png, and asks the run to end."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.files: list[str] = []
        self.stop = threading.Event()

    def see(self, pid: int, path: str) -> None:
        self.files.append(Path(path).name)
        if path.endswith("001.png") and not self.pids:
            os.kill(pid, signal.SIGSTOP)
            self.pids.append(pid)
            self.stop.set()


@pytest.fixture
def freezer(monkeypatch: pytest.MonkeyPatch) -> Freezer:
    freezer = Freezer()
    monkeypatch.setattr(decode, "WAIT_SECONDS", 0.05)
    original = decode.Worker.answer

    def seen(self: decode.Worker, task: Any, seconds: float) -> Any:
        if not isinstance(task[2], ReadFacts):
            freezer.see(self.pid, task[0])
        return original(self, task, seconds)

    monkeypatch.setattr(decode.Worker, "answer", seen)
    return freezer


def test_an_image_that_is_being_decoded_when_the_run_is_stopped_is_decided(
    library: Library, freezer: Freezer
) -> None:
    library.add(40)
    library.crawl()
    with pytest.raises(Stopped):
        library.embed(stop=freezer.stop)
    assert freezer.pids
    unfinished = read_quarantine(library.store, SPACE, "pictures").to_pylist()
    failed = {row["path"] for row in unfinished}  # the other worker may have been at one as well
    assert "001.png" in failed
    assert {row["reason"] for row in unfinished} == {"timed_out"}
    freezer.files.clear()
    report = library.embed(workers=1)
    assert (report.embedded + report.known, report.quarantined, report.left) == (40, 0, 0)
    assert library.reasons() == []
    assert set(freezer.files[-len(failed) :]) == failed, "what failed before comes last"


def test_an_image_that_is_being_decoded_is_in_quarantine_meanwhile(
    library: Library, freezer: Freezer
) -> None:
    library.add(4)
    library.crawl()
    seen: list[str] = []

    def look() -> None:
        table = library.store.quarantine(SPACE, "pictures")
        while not (freezer.pids and "001.png" in seen):
            time.sleep(0.01)
            if table.exists():
                rows = read_quarantine(library.store, SPACE, "pictures")
                seen.extend(rows["path"].to_pylist())
        os.kill(freezer.pids[0], signal.SIGCONT)

    watcher = threading.Thread(target=look)
    watcher.start()
    report = library.embed()
    watcher.join()
    assert (report.embedded, report.quarantined, report.newly_quarantined) == (4, 0, 0)
    assert library.reasons() == []


def test_a_file_that_changed_but_for_its_size_and_time_is_hashed_by_the_next_run(
    library: Library,
) -> None:
    library.add(4)
    library.crawl()
    path = library.pictures / "001.png"
    former, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1  # a checksum: the picture is the same
    path.write_bytes(data)
    os.utime(path, ns=(former.st_atime_ns, former.st_mtime_ns))
    assert library.embed().left == 1
    library.crawl()
    report = library.embed()
    assert (report.embedded, report.left) == (1, 0)


def test_a_jpeg_that_lacks_its_end_is_embedded_and_marked(library: Library) -> None:
    library.add(2)
    buffer = BytesIO()
    Image.new("RGB", (20, 10), "teal").save(buffer, "JPEG")
    cut = library.pictures / "cut.jpg"
    cut.write_bytes(buffer.getvalue()[:-2])
    library.crawl()
    report = library.embed()
    assert (report.embedded, report.quarantined) == (3, 0)
    assert damaged_ids(library.store, SPACE) == {content_id_of_file(cut)}
