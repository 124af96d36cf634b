"""The table of images that could not be used."""

from pathlib import Path

from retrieval_pipeline.images.errors import ImageError, Reason
from retrieval_pipeline.ingest.quarantine import Quarantine
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_quarantine
from retrieval_pipeline.vectors import VectorSpace

SPACE = VectorSpace("tiny", "1", 8, "none")


def test_a_detail_that_quotes_bytes_of_a_file_is_written_with_escapes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    quarantine = Quarantine.read(store, SPACE, "here", set())
    detail = "unknown tag \udcff\x1b[31m"
    quarantine.add("0" * 32, "a.jpg", ImageError(Reason.UNSUPPORTED, detail))
    quarantine.publish()
    (row,) = read_quarantine(store, SPACE, "here").to_pylist()
    assert row["detail"] == r"unknown tag \udcff\x1b[31m"
