"""The files of an export: Parquet, Lance, NumPy and CSV, WebDataset, XMP sidecars.

Each is written under a temporary name beside the target and renamed when it is complete, batch by
batch, so that memory does not grow with the number of pictures.
"""

import contextlib
import csv
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.export.table import COLUMNS, PictureRows
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import encoded, pictures
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.atomic import explained, replacing, temporary_path

Kind = Literal["parquet", "lance", "numpy", "webdataset", "xmp"]

JPEG_QUALITY = 90


def write_parquet(rows: PictureRows, file: Path, progress: Progress) -> None:
    """Write one Parquet file; the descriptions of the columns are in its metadata.

    Raises:
        StoreError: The file system refused; what was there before is still there.
    """
    with (
        replacing(file) as temporary,
        pq.ParquetWriter(temporary, rows.schema, compression="zstd") as writer,
    ):
        for batch in _told(rows, progress):
            writer.write_batch(batch)


def write_lance(rows: PictureRows, directory: Path, progress: Progress) -> None:
    """Write a Lance dataset: a directory, with the columns of the Parquet file.

    Raises:
        StoreError: Lance is not installed, the file system refused, or the directory exists.
    """
    try:
        import lance
    except ImportError:
        raise StoreError(
            'Lance is not installed: pip install "retrieval-pipeline[lance]", or write Parquet, '
            "which Lance reads"
        ) from None
    with _new_tree(directory) as temporary:
        batches = pa.RecordBatchReader.from_batches(rows.schema, _told(rows, progress))
        lance.write_dataset(batches, str(temporary))


def write_numpy(rows: PictureRows, directory: Path, progress: Progress) -> None:
    """Write a directory: vectors.npy, float32 (n, dim), pictures.csv and columns.json.

    A row of the one is a row of the other. Lists are JSON in the CSV.

    Raises:
        StoreError: The file system refused, or the directory exists.
    """
    names = [name for name in rows.schema.names if name != "embedding"]
    dim = rows.searcher.index.info.dim
    with _new_tree(directory) as temporary:
        vectors = None
        if "embedding" in rows.schema.names:
            vectors = np.lib.format.open_memmap(
                temporary / "vectors.npy", mode="w+", dtype=np.float32, shape=(len(rows), dim)
            )
        with (temporary / "pictures.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(names)
            done = 0
            for batch in _told(rows, progress):
                table.writerows(
                    [_cell(row[name]) for name in names] for row in batch.select(names).to_pylist()
                )
                if vectors is not None:
                    flat = batch["embedding"].flatten().to_numpy()
                    vectors[done : done + len(batch)] = flat.reshape(-1, dim)
                done += len(batch)
        if vectors is not None:
            vectors.flush()
        about = json.loads(rows.schema.metadata[b"retrieval"])
        described = {"columns": {name: COLUMNS[name] for name in rows.schema.names}, **about}
        (temporary / "columns.json").write_text(json.dumps(described, indent=2), encoding="utf-8")


def write_webdataset(
    rows: PictureRows, file: Path, progress: Progress, *, size: int, limits: Limits
) -> list[str]:
    """Write a tar of resized pictures, as WebDataset reads it.

    Each picture is `<content id>.jpg`, at most `size` pixels wide and high, with
    `<content id>.json`, the row of the table, and `<content id>.npy`, its vector.

    Returns:
        A line for each picture that cannot be read now, which is left out.

    Raises:
        StoreError: The file system refused; what was there before is still there.
        WorkerError: No worker can be started to decode pictures.
    """
    left_out = []
    with replacing(file) as temporary, tarfile.open(temporary, "w") as tar:
        for batch in _told(rows, progress):
            records = batch.to_pylist()
            jobs = [_job(rows, record) for record in records]
            found = pictures(jobs, Fit(size), limits)
            for record, picture in zip(records, found, strict=True):
                if isinstance(picture, ImageError):
                    left_out.append(f"{record['path']}: {picture}")
                    continue
                name, vector = record["content_id"], record.pop("embedding", None)
                _add(tar, f"{name}.jpg", encoded(picture.pixels, "JPEG", JPEG_QUALITY))
                _add(tar, f"{name}.json", json.dumps(record, default=str).encode())
                if vector is not None:
                    _add(tar, f"{name}.npy", _npy(vector))
    return left_out


def write_xmp(rows: PictureRows, directory: Path, progress: Progress) -> int:
    """Write a tree of XMP sidecars, `<source>/<path>.xmp`, of the pictures that have labels.

    The labels are keywords (`dc:subject`), which photo programs read. Nothing is written beside the
    pictures or into them: whoever wants that copies the tree over a source.

    Returns:
        How many there are.

    Raises:
        StoreError: The file system refused, cannot hold a name, or the directory exists.
    """
    count = 0
    with _new_tree(directory) as temporary:
        for batch in _told(rows, progress):
            columns = ["source", "path_in_source", "labels"]
            for row in batch.select(columns).to_pylist():
                if not row["labels"]:
                    continue
                name = f"{row['source']}/{to_path(row['path_in_source'])}.xmp"
                with explained(directory / name):
                    target = temporary / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(_xmp(row["labels"]), encoding="utf-8")
                count += 1
    return count


def _told(rows: PictureRows, progress: Progress) -> Iterator[pa.RecordBatch]:
    progress.start("export", len(rows), "pictures")
    for batch in rows.batches():
        yield batch
        progress.advance(len(batch))
    progress.finish()


@contextlib.contextmanager
def _new_tree(directory: Path) -> Iterator[Path]:
    """Yield a temporary directory that is renamed to `directory`, which must be new or empty.

    Raises:
        StoreError: The file system refused, and nothing is there; or there are files in it.
    """
    with explained(directory):
        if directory.is_dir() and any(directory.iterdir()):
            raise StoreError(f"{directory} is not empty: name a new directory")
    temporary = temporary_path(directory)
    try:
        with explained(directory):
            temporary.mkdir(parents=True)
            yield temporary
            temporary.replace(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _job(rows: PictureRows, record: dict[str, Any]) -> Job:
    location = Location(record["source"], record["path_in_source"])
    return Job(rows.searcher.path_of(location), record["content_id"])


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _npy(vector: list[float]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(vector, np.float32))
    return buffer.getvalue()


def _xmp(labels: list[str]) -> str:
    """Return a packet of XMP (ISO 16684-1) with these keywords."""
    items = "".join(f"<rdf:li>{escape(label)}</rdf:li>" for label in labels)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
