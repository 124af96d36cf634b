"""Items in the order of the date taken, or of their names."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.search.query import Sort
from retrieval_pipeline.search.vector_index import UNKNOWN_TIME
from retrieval_pipeline.vectors import Numbers


def in_order(corpus: Corpus, numbers: Numbers, sort: Sort) -> Numbers:
    """Return the order of these items, int64 (n,): positions in `numbers`.

    By name it is that of the first file's name, without regard to case. Items without a date come
    last, both ways; of equal ones the item with the smaller number comes first. Without facts in
    the corpus, the date is that of the newest file.

    Args:
        corpus: Whose items they are.
        numbers: int64 (n,), of the items.
        sort: The order; "relevance", which is unknown here, leaves them as they are.
    """
    if sort == "relevance":
        return np.arange(len(numbers))
    if sort == "name":
        keys = _names(corpus, numbers)
        ranks = pc.rank(keys, sort_keys="ascending", tiebreaker="dense").to_numpy()
        return np.lexsort((numbers, ranks))
    times = times_of(corpus)[numbers]
    unknown = times == UNKNOWN_TIME
    return np.lexsort((numbers, -times if sort == "newest" else times, unknown))


def months(taken: Numbers) -> list[tuple[str, int]]:
    """Return the months in which items were taken, one after the other.

    Args:
        taken: When, int64 (n,) in microseconds, or UNKNOWN_TIME; in order.

    Returns:
        Each month as "2019-08", empty for unknown dates, and how many items in a row are of it.
    """
    if not len(taken):
        return []
    month = taken.astype("datetime64[us]").astype("datetime64[M]")
    month[taken == UNKNOWN_TIME] = np.datetime64("NaT")
    of_month = month.astype(np.int64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(of_month)) + 1])
    counts = np.diff([*starts, len(taken)])
    # NumPy writes an unknown date as NaT.
    named = ["" if name == "NaT" else name for name in month[starts].astype(str).tolist()]
    return list(zip(named, counts.tolist(), strict=True))


def times_of(corpus: Corpus) -> Numbers:
    """Return when each item was taken, int64 (items,) in microseconds; UNKNOWN_TIME if unknown."""
    if corpus.facts is not None:
        known: Numbers = pc.fill_null(corpus.facts["taken_at"], UNKNOWN_TIME).to_numpy()
        return known
    newest = [np.empty(0, np.int64)]
    for chunk in corpus.items["locations"].chunks:
        starts = chunk.offsets.to_numpy()[:-1] - chunk.offsets[0].as_py()
        changed = chunk.flatten().field("mtime_ns").to_numpy()
        newest.append(np.maximum.reduceat(changed, starts) // 1_000)
    return np.concatenate(newest)


def _names(corpus: Corpus, numbers: Numbers) -> pa.ChunkedArray:
    """Return the name of the first file of these items, in lower case, without its folders."""
    paths = pa.chunked_array(
        [pc.list_element(chunk, 0).field("path") for chunk in corpus.items["locations"].chunks],
        pa.string(),
    )
    names = pc.replace_substring_regex(paths.take(pa.array(numbers)), "^.*/", "")
    return pc.utf8_lower(names)
