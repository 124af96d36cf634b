"""Are eight bits faithful? Both formats encode the user's own first pictures, and are compared.

How a checkpoint bears eight bits depends on its weights and on the pictures, so it is found out
where both are. What comes of it is stored (`storage.int8_check`), and `encoders.from_settings` goes
by that. The vectors of the chosen format are kept as embeddings.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.encoders.base import Encoder, int8_description
from retrieval_pipeline.encoders.from_settings import (
    describe_encoder,
    faithful_description,
    load_settings_encoder,
)
from retrieval_pipeline.encoders.load import OFFLINE
from retrieval_pipeline.errors import Stopped
from retrieval_pipeline.facts.grouped_files import read_grouped_files
from retrieval_pipeline.images.decode_pool import DecodePool, Job, Outcome
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.ingest.embed import embedded_ids, first_paths
from retrieval_pipeline.ingest.encode_threads import Embedded, EncodeThreads, Result
from retrieval_pipeline.ingest.facts import record_facts
from retrieval_pipeline.ingest.part_writer import PartWriter
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.int8_check import Int8Check, read_int8_check, write_int8_check
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace

# Pictures that are encoded in both formats. Where int8 is asked for, fewer will do, if there are no
# more; of too few, all are neighbours of each other.
PICTURES, FEWEST = 256, 50
# Nearest neighbours of each picture that are looked at.
NEIGHBOURS = 10
# Similarities that differ by less are equal: float32 and bfloat16 differ as much.
TIE = 1e-4


@dataclass(frozen=True)
class _Picture:
    source: Source
    job: Job


def check_int8(
    settings: Settings,
    sources: Sequence[Source],
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Find out whether the pictures are to be encoded in eight bits, if that is still open.

    It is open if the settings ask for "int8" and no check was finished. With "auto" the home must
    also have no vectors of the faithful format yet, which would all be computed again; the
    processor must have instructions for eight bits; and there must be PICTURES pictures. A run on
    Ray leaves it open: the check is made in this process.

    The caller holds the store's lock and has brought the manifests up to date.

    Args:
        settings: Name the model, the precision and the home.
        sources: Where the pictures are taken from, in this order.
        progress: Told of the pictures, and of what comes out in one line.
        stop: Ends the check when it is set; the next run makes it again.

    Raises:
        EncoderError: The model cannot be had, or its device failed.
        WorkerError: No decode worker can be started.
        StoreError: A table is damaged or cannot be written.
        Stopped: `stop` was set.
    """
    progress = progress or Quiet()
    if settings.precision == "reference" or settings.model == OFFLINE:
        return
    asked = settings.precision == "int8"
    store, plain = Store(settings.home), faithful_description(settings)
    eight = int8_description(plain)
    if (
        describe_encoder(settings).space == eight.space
        or read_int8_check(store.int8_check(eight.space)) is not None
        or (not asked and store.parts(plain.space))
    ):
        return
    if settings.ray is not None:
        if asked:
            progress.note(
                "int8 is not used yet: its check is made on this machine, by a run without Ray"
            )
        return
    pictures = list(islice(_pictures(store, plain.space, sources), PICTURES))
    if len(pictures) < (FEWEST if asked else PICTURES):
        if asked and pictures:
            progress.note(
                f"int8 is not used yet: its check needs {FEWEST} pictures, and here are "
                f"{len(pictures)}"
            )
        return
    if not asked and not _has_instructions(settings):
        return
    int8_encoder = load_settings_encoder(settings, eight.space)
    if int8_encoder.number_format != "int8":
        if asked:
            progress.note(
                "int8 is not used: this model on this device cannot be computed in eight bits; "
                f"it stays {int8_encoder.number_format}"
            )
        return
    encoder = load_settings_encoder(settings, plain.space)
    progress.start("checking int8", 2 * len(pictures), "images")
    with DecodePool(plain.transform, Limits.of(settings.images), settings.workers) as pool:
        outcomes = [outcome for _, outcome in pool.map(picture.job for picture in pictures)]
    true, true_seconds = _encoded(encoder, outcomes, progress, stop)
    found, found_seconds = _encoded(int8_encoder, outcomes, progress, stop)
    progress.finish()
    both = [
        (each.vector, other.vector)
        for each, other in zip(true, found, strict=True)
        if isinstance(each, Embedded) and isinstance(other, Embedded)
    ]
    if len(both) < FEWEST:  # the others cannot be used: the run tells why
        return
    mean, least, kept = compare(*map(np.array, zip(*both, strict=True)))
    check = Int8Check(
        pictures=len(both),
        mean_cosine=mean,
        least_cosine=least,
        kept_neighbours=kept,
        times_as_fast=true_seconds / max(found_seconds, 1e-9),
        other=encoder.number_format,
        asked=asked,
    )
    if check.is_used:
        _store(store, eight.space, pictures, found)
    else:
        _store(store, plain.space, pictures, true)
    write_int8_check(store.int8_check(eight.space), check)
    progress.note(f"{check.line}; these {len(both):,} are embedded")


def compare(true: Vectors, found: Vectors) -> tuple[float, float, float]:
    """Compare two vectors (n, dim) of each of n pictures, n > NEIGHBOURS.

    Returns:
        The mean and the least cosine of the two, and the share of the nearest NEIGHBOURS in
        `found` that are as near in `true` as the nearest NEIGHBOURS there.
    """
    cosines = (true * found).sum(axis=1, dtype=np.float64)
    similar, chosen = (rows @ rows.T for rows in (true, found))
    for each in (similar, chosen):
        np.fill_diagonal(each, -np.inf)
    nearest = np.argsort(-chosen, axis=1, kind="stable")[:, :NEIGHBOURS]
    last = np.sort(similar, axis=1)[:, -NEIGHBOURS]
    kept = np.take_along_axis(similar, nearest, axis=1) >= last[:, None] - TIE
    return float(cosines.mean()), float(cosines.min()), float(kept.mean())


def _has_instructions(settings: Settings) -> bool:
    """Tell whether "auto" may choose int8: on a processor whose products take whole eight bits."""
    from retrieval_pipeline.encoders.hardware import pick_device
    from retrieval_pipeline.encoders.int8 import has_full_products

    return pick_device(settings.device).type == "cpu" and has_full_products()


def _pictures(store: Store, space: VectorSpace, sources: Sequence[Source]) -> Iterator[_Picture]:
    """Yield the pictures of the sources, each content once."""
    seen: set[str] = set()
    for source in sources:
        files = read_grouped_files(store, space, source.name).files
        for content, path in first_paths(files).items():
            if content not in seen:
                seen.add(content)
                yield _Picture(source, Job(source.path / to_path(path), content, source.views))


def _encoded(
    encoder: Encoder,
    outcomes: Sequence[Outcome],
    progress: Progress,
    stop: threading.Event | None,
) -> tuple[list[Result], float]:
    """Return the results in the order of the outcomes, and the processor time of encoding."""
    threads = EncodeThreads(encoder)
    results: list[Result] = []
    for batch in threads.map(outcomes):
        results += batch
        progress.advance(len(batch))
        if stop is not None and stop.is_set():
            raise Stopped("stopped while int8 was being checked: the next run checks again")
    return results, threads.work.computing


def _store(
    store: Store, space: VectorSpace, pictures: Sequence[_Picture], results: Sequence[Result]
) -> None:
    """Keep the vectors as embeddings; what failed is left to the run that follows."""
    known = embedded_ids(store, space)
    for source in dict.fromkeys(picture.source for picture in pictures):
        writer = PartWriter(store, space, source.name)
        facts = {}
        for picture, result in zip(pictures, results, strict=True):
            content = picture.job.content_id
            assert content is not None
            if picture.source != source or not isinstance(result, Embedded) or content in known:
                continue
            writer.add(content, result)
            if result.facts is not None:
                facts[content] = result.facts
        writer.publish()
        if facts:
            record_facts(store, source.name, facts)
