"""Embedding as a Ray Data pipeline, on this machine or on any cluster.

Decoders and encoders are Ray actors: tables of jobs go in, tables of vectors come out. Only the
process that started the run writes the store (`embed.py`), so that a run on a cluster stores what
a local run would. Ray replaces actors that die, and repeats the batches that they worked on.
"""

import contextlib
import functools
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval_pipeline.config.settings import RaySettings
from retrieval_pipeline.encoders.base import Description, Encoder
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.facts.model import PictureFacts, from_json, to_json
from retrieval_pipeline.images.decode_pool import Changed, DecodePool, Job, Outcome
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.images.transform import Decoded, ImageTransform
from retrieval_pipeline.ingest.bottleneck import MachineWork
from retrieval_pipeline.ingest.encode_threads import Embedded, EncodeThreads, Result
from retrieval_pipeline.storage.remote import Place, Remote
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.views import View

# Images in one call of an actor. Encoders cut them into their own batches. Larger calls cost less
# per image; smaller ones show progress sooner, which matters on slow processors.
CPU_ROWS = 64
GPU_ROWS = 512

VIEW = pa.list_(pa.float64(), len(VIEW_COLUMNS))
# `kind` is null if nothing but `views` is wanted.
JOBS = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("root", pa.string()),
        pa.field("path", pa.binary(), nullable=False),
        pa.field("kind", pa.string()),
        pa.field("views", pa.list_(VIEW)),
    ]
)
# Columns of the machine that decoded or encoded an image, and of the seconds that this took.
DECODING, ENCODING = ("decoded_on", "decode_seconds"), ("encoded_on", "encode_seconds")
# The result for one image: its pixels or vector and those of its views as bytes, or the reason why
# it failed.
RESULTS = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("data", pa.large_binary()),
        pa.field("shape", pa.list_(pa.int32())),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),
        pa.field("facts", pa.string()),
        pa.field("views", pa.list_(VIEW)),
        pa.field("views_only", pa.bool_()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        *(
            field
            for machine, seconds in (DECODING, ENCODING)
            for field in (pa.field(machine, pa.string()), pa.field(seconds, pa.float64()))
        ),
    ]
)
CHANGED = "changed"


class Decoder:
    """An actor that decodes: takes a table of JOBS, returns one of RESULTS with pixels."""

    def __init__(self, transform: ImageTransform, limits: Limits) -> None:
        # One worker: the actor asks Ray for one processor.
        self._pool = DecodePool(transform, limits, workers=1)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Decode a batch in a guarded worker process, as a local run does."""
        started = time.monotonic()
        outcomes = [outcome for _, outcome in self._pool.map(_jobs(table))]
        return _signed(_packed(table["content_id"], outcomes), *DECODING, started)


class ImageEncoder:
    """An actor that encodes: takes a table of RESULTS with pixels, returns one with vectors."""

    def __init__(self, load: Callable[[], Encoder], space: VectorSpace) -> None:
        self._load, self._space = load, space

    @functools.cached_property
    def _lanes(self) -> EncodeThreads:
        """The encoder, loaded by the first batch: Ray reports the cause of an error there."""
        encoder = self._load()
        if encoder.space != self._space:
            raise EncoderError(
                f"{socket.gethostname()} has another version of {self._space.model} or of this "
                "program than the machine that asks: install the same on all of them"
            )
        return EncodeThreads(encoder)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Encode a batch; rows of images that could not be decoded are passed on."""
        started = time.monotonic()
        results = [result for batch in self._lanes.map(_outcomes(table)) for result in batch]
        encoded = _signed(_packed(table["content_id"], results), *ENCODING, started)
        return _put(encoded, {name: table[name] for name in DECODING})


def embedded_by_ray(
    jobs: Sequence[Job],
    machines: dict[str, MachineWork],
    description: Description,
    load: Callable[[], Encoder],
    limits: Limits,
    settings: RaySettings,
) -> Generator[list[Result], None, None]:
    """Yield the results of `jobs` in batches, in order, as the actors deliver them.

    Args:
        jobs: Their files must have the same paths on every machine of the cluster, or be remote.
        machines: Gets what each machine did, as far as its results have come.
        description: The encoder's vector space and the input that it wants.
        load: Loads the encoder in an actor; every machine needs this package and the model.
        limits: Bounds for decoding one image.
        settings: Address of the cluster, and how many actors to use.

    Raises:
        EncoderError: Ray is not installed or cannot be reached, or an actor cannot do its work.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise EncoderError(
            'embedding on Ray needs the extra "ray": pip install "retrieval-pipeline[ray]"'
        ) from None

    with _connected(ray, settings.address):
        table = _table_of(jobs)
        rows = GPU_ROWS if settings.num_gpus else CPU_ROWS
        data = (
            ray.data.from_arrow([table.slice(start, rows) for start in range(0, len(table), rows)])
            .map_batches(
                Decoder,
                fn_constructor_args=(description.transform, limits),
                batch_size=CPU_ROWS,
                batch_format="pyarrow",
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=settings.decoders),
            )
            .map_batches(
                ImageEncoder,
                fn_constructor_args=(load, description.space),
                batch_size=rows,
                batch_format="pyarrow",
                num_cpus=1,
                num_gpus=settings.num_gpus,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=settings.encoders),
            )
        )
        with _explained(ray):
            for batch in data.iter_batches(batch_size=None, batch_format="pyarrow"):
                _add_work(machines, batch)
                yield list(_results(batch))


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Connect to a cluster, and disconnect at the end, unless the process was connected before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's processes write to their log files; on the terminal their lines would be noise.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    connected = ray.is_initialized()
    if not connected:
        try:
            # Ray puts the working directory on the import path of its workers.
            with contextlib.chdir(os.sep):
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EncoderError(
                f'no Ray cluster at "{address}" ({_first_line(error)}): start one with '
                '`ray start --head`, or use "local"'
            ) from error
    try:
        context = ray.data.DataContext.get_current()
        # Results come in the order of the jobs, so that the same input makes the same tables.
        context.execution_options.preserve_order = True
        context.raise_original_map_exception = True
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield
    finally:
        if not connected:
            ray.shutdown()


@contextlib.contextmanager
def _explained(ray: Any) -> Iterator[None]:
    """Turn an error in an actor into an EncoderError of one line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", error)
        raise EncoderError(f"on Ray: {_first_line(cause)}") from error


def _table_of(jobs: Sequence[Job]) -> pa.Table:
    rows = [(job.content_id, *_address(job.path), *_views_wanted(job)) for job in jobs]
    columns = zip(JOBS, zip(*rows, strict=True), strict=True)
    return pa.table([pa.array(values, field.type) for field, values in columns], schema=JOBS)


def _address(path: str | Place) -> tuple[str | None, bytes]:
    if isinstance(path, Remote):
        return path.url_with_credentials(), os.fsencode(path.key)
    return None, os.fsencode(path)


def _views_wanted(job: Job) -> tuple[str | None, list[tuple[float, ...]]]:
    if isinstance(job.views, str):
        return job.views, []
    return None, [astuple(view) for view in job.views]


def _jobs(table: pa.Table) -> Iterator[Job]:
    for row in table.to_pylist():
        name, root = os.fsdecode(row["path"]), row["root"]
        place = Path(name) if root is None else Remote(root, name)
        yield Job(place, row["content_id"], row["kind"] or _views(row))


def _packed(contents: pa.ChunkedArray, results: Sequence[Outcome | Result]) -> pa.Table:
    rows = [
        {"content_id": content, **_row(result)}
        for content, result in zip(contents.to_pylist(), results, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=RESULTS)


def _signed(table: pa.Table, machine: str, seconds: str, started: float) -> pa.Table:
    """Note in each row where it was worked on, and its share of the time since `started`.

    Args:
        table: One of RESULTS.
        machine: The column that names the machine.
        seconds: The column of the time.
        started: When the work on the table began, by `time.monotonic`.
    """
    rows = len(table)
    share = (time.monotonic() - started) / max(rows, 1)
    here = pa.array([socket.gethostname()] * rows, pa.string())
    return _put(table, {machine: here, seconds: pa.array([share] * rows, pa.float64())})


def _put(table: pa.Table, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Replace columns of a table of RESULTS."""
    for name, values in columns.items():
        number = RESULTS.get_field_index(name)
        table = table.set_column(number, RESULTS.field(number), values)
    return table


def _add_work(machines: dict[str, MachineWork], table: pa.Table) -> None:
    """Add up which machine did what for these results."""
    for row in table.select([*DECODING, *ENCODING, "reason"]).to_pylist():
        decoder = machines.setdefault(row["decoded_on"], MachineWork())
        decoder.decoded += 1
        decoder.decode_seconds += row["decode_seconds"]
        encoder = machines.setdefault(row["encoded_on"], MachineWork())
        # What could not be decoded only passes through.
        encoder.encoded += row["reason"] is None
        encoder.encode_seconds += row["encode_seconds"]


def _row(result: Outcome | Result) -> dict[str, object]:
    if isinstance(result, ImageError):
        return {"reason": result.reason.value, "detail": result.detail}
    if isinstance(result, Changed):
        return {"reason": CHANGED}
    arrays: tuple[npt.NDArray[Any], ...]
    if isinstance(result, Decoded):
        arrays, views_only = (result.pixels, *result.view_pixels), result.views_only
    else:
        own = () if result.vector is None else (result.vector,)
        arrays, views_only = (*own, *result.view_vectors), result.vector is None
    return {
        "data": b"".join(array.tobytes() for array in arrays),
        # A picture whose views have no vectors has none at all.
        "shape": arrays[0].shape if arrays else (1,),
        "width": result.width,
        "height": result.height,
        "format": result.format,
        "facts": None if result.facts is None else json.dumps(to_json(result.facts)),
        "views": [astuple(view) for view in result.views],
        "views_only": views_only,
    }


def _outcomes(table: pa.Table) -> Iterator[Outcome]:
    for row in table.to_pylist():
        if (failure := _failure(row)) is not None:
            yield failure
        else:
            own, *further = _arrays(row, np.uint8)
            yield Decoded(own, *_facts(row), _views(row), tuple(further), row["views_only"])


def _results(table: pa.Table) -> Iterator[Result]:
    for row in table.to_pylist():
        if (failure := _failure(row)) is not None:
            yield failure
        else:
            arrays = list(_arrays(row, np.float32))
            own = None if row["views_only"] else arrays.pop(0)
            yield Embedded(own, *_facts(row), _views(row), tuple(arrays))


def _failure(row: dict[str, Any]) -> ImageError | Changed | None:
    if row["reason"] is None:
        return None
    return (
        Changed() if row["reason"] == CHANGED else ImageError(Reason(row["reason"]), row["detail"])
    )


def _arrays(row: dict[str, Any], dtype: type[np.generic]) -> Any:
    """Return the pixels or vectors of an image and its views, those of the image itself first."""
    return np.frombuffer(row["data"], dtype).reshape((-1, *row["shape"]))


def _views(row: dict[str, Any]) -> tuple[View, ...]:
    return tuple(View(*view) for view in row["views"])


def _facts(row: dict[str, Any]) -> tuple[int, int, str, PictureFacts | None]:
    facts = None if row["facts"] is None else from_json(json.loads(row["facts"]))
    return row["width"], row["height"], row["format"], facts


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]
