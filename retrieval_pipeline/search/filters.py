"""Which items of a corpus pass the filters of a query, exactly."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.config.extensions import DAMAGED, format_named
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.items import LOCATION
from retrieval_pipeline.index.records import IndexedFile
from retrieval_pipeline.paths import compile_globs, glob_matches
from retrieval_pipeline.search.fact_filters import fact_flags, with_file_times
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.vector_index import unknown_source
from retrieval_pipeline.vectors import Flags

# The fields of a location.
FILE_COLUMNS = [field.name for field in LOCATION]

# Years whose nanoseconds since 1970 are 64 bits.
FIRST_YEAR, LAST_YEAR = 1678, 2261


def passing(corpus: Corpus, query: Query) -> Flags | None:
    """Return which items pass, bool (items,), or None if the query has no filters.

    Albums and labels are the searcher's business: they change while an index is open.

    An item passes if one of its files does: a copy elsewhere neither helps nor hurts it. Companions
    count as files: whoever looks for *.nef finds the JPEG that is shown for it.

    Raises:
        QueryError: A filter names a source that is not in the index, a place that does not exist,
            or a fact that the index does not know.
    """
    for source in query.sources:
        if source not in corpus.info.sources:
            raise unknown_source(source, corpus.info.sources)
    flags = fact_flags(corpus, query)
    if corpus.facts is None:
        query = with_file_times(query)
    if query.sources or query.paths or query.file_after or query.file_before:
        located = np.concatenate([_located(chunk, query) for chunk in _chunks(corpus, "locations")])
        passing = _passing_files(corpus.companions.select(FILE_COLUMNS), query)
        flags = both(flags, located | _owned(corpus, passing))
    if query.min_width or query.min_height or query.formats:
        wanted = pa.array([format_named(name) for name in query.formats])
        good = pc.and_(
            pc.greater_equal(corpus.items["width"], query.min_width),
            pc.greater_equal(corpus.items["height"], query.min_height),
        )
        if query.formats:
            formats = pc.replace_substring(corpus.items["format"], DAMAGED, "")
            formatted = _numpy(pc.is_in(pc.utf8_upper(formats), wanted))
            good = pc.and_(good, pa.array(formatted | _owned(corpus, _of_formats(corpus, wanted))))
        flags = both(flags, good.to_numpy())
    return flags


def both(flags: Flags | None, others: Flags | None) -> Flags | None:
    """Return which items pass both filters; None stands for a filter that all pass."""
    if flags is None or others is None:
        return others if flags is None else flags
    return flags & others


def _chunks(corpus: Corpus, column: str) -> list[Any]:
    chunks: list[Any] = corpus.items.column(column).chunks
    return chunks


def _located(locations: pa.ListArray, query: Query) -> Flags:
    """Tell of each list of locations whether one of them passes."""
    places = locations.flatten()
    good = _passing_files(pa.table(places.flatten(), FILE_COLUMNS), query)
    starts = locations.offsets.to_numpy()[:-1] - locations.offsets[0].as_py()
    result: Flags = np.logical_or.reduceat(good, starts)
    return result


def _owned(corpus: Corpus, companions: Flags) -> Flags:
    """Tell of each item whether one of these companions, bool (companions,), is its own."""
    flags = np.zeros(len(corpus), np.bool_)
    flags[corpus.companions["item"].to_numpy()[companions]] = True
    return flags


def _of_formats(corpus: Corpus, wanted: pa.Array) -> Flags:
    """Tell of each companion whether its extension is that of one of these formats."""
    endings = pc.extract_regex(pc.utf8_upper(corpus.companions["path"]), r"\.(?P<end>[^./]*)$")
    names = pc.struct_field(endings, "end").to_pylist()
    formats = [format_named(name) if name else None for name in names]
    return _numpy(pc.is_in(pa.array(formats, pa.string()), wanted))


def _passing_files(files: pa.Table, query: Query) -> Flags:
    """Tell of each file, in a table with the columns FILE_COLUMNS, whether it passes."""
    good = np.ones(len(files), np.bool_)
    if query.sources:
        good &= _numpy(pc.is_in(files["source"], pa.array(query.sources)))
    times = files["mtime_ns"]
    if query.file_after:
        good &= _numpy(pc.greater_equal(times, nanoseconds(query.file_after)))
    if query.file_before:
        good &= _numpy(pc.less(times, nanoseconds(query.file_before)))
    if query.paths:
        globs = compile_globs(query.paths)
        # Globs are slow, so they come last and only where it still matters.
        at = np.flatnonzero(good)
        paths = files["path"].take(pa.array(at)).to_pylist()
        good[at] = np.fromiter((glob_matches(globs, path) for path in paths), np.bool_, len(at))
    return good


def file_test(query: Query, *, knows_facts: bool) -> Callable[[IndexedFile], bool]:
    """Return what tells of one file of an item whether it passes the filters.

    Args:
        query: Has the filters.
        knows_facts: Whether the index knows dates taken; else the times of files stand for them.
    """
    query = query if knows_facts else with_file_times(query)
    globs = compile_globs(query.paths)
    after = nanoseconds(query.file_after) if query.file_after else None
    before = nanoseconds(query.file_before) if query.file_before else None

    def passes(file: IndexedFile) -> bool:
        return (
            (not query.sources or file.location.source in query.sources)
            and (after is None or file.mtime_ns >= after)
            and (before is None or file.mtime_ns < before)
            and (globs is None or glob_matches(globs, file.location.path))
        )

    return passes


def _numpy(array: pa.BooleanArray | pa.ChunkedArray) -> Flags:
    flags: Flags = np.asarray(array)
    return flags


def nanoseconds(moment: datetime) -> int:
    """Return a moment as the times of files are: nanoseconds since 1970."""
    # The times of files are 64 bits; what lies before or after all of them is as good as the end.
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        return -(2**63) if moment.year < FIRST_YEAR else 2**63 - 1
    # A float of a time holds microseconds, not nanoseconds.
    return round(moment.timestamp() * 1_000_000) * 1_000
