"""Verification: every stored file is read in full and checked against its contract."""

import contextlib
import functools
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import BuildError, RetrievalError, StoreError, UnreadableError
from retrieval_pipeline.facts.model import Origin
from retrieval_pipeline.images.errors import Reason
from retrieval_pipeline.index.arrays import load_array
from retrieval_pipeline.index.arrow import as_matrix
from retrieval_pipeline.index.blocks import map_table, open_blocks
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.build_info import OtherVersionError, read_info
from retrieval_pipeline.index.hashed_files import FileFacts, check_files
from retrieval_pipeline.index.matrices import in_float32
from retrieval_pipeline.index.segment import name_of, open_segment
from retrieval_pipeline.index.views import are_views
from retrieval_pipeline.ingest.manifest import Status
from retrieval_pipeline.latent_map.coordinates import (
    NEIGHBOURS_FILE,
    read_coordinates,
    read_map_info,
    read_neighbours,
)
from retrieval_pipeline.processes import child_options, python_command
from retrieval_pipeline.recommend.votes import read_judgements
from retrieval_pipeline.search.labels import read_labels
from retrieval_pipeline.search.saved_queries import read_found
from retrieval_pipeline.storage.home import check_home, is_our_table
from retrieval_pipeline.storage.int8_check import read_int8_check
from retrieval_pipeline.storage.names import BLOCKS, SEGMENTS, title_of
from retrieval_pipeline.storage.reading import is_there, unreadable
from retrieval_pipeline.storage.saved_searches import read_saved_search
from retrieval_pipeline.storage.schemas import (
    ALBUM,
    FACTS,
    MANIFEST,
    QUARANTINE,
    SIDECARS,
    VIEW_COLUMNS,
    embedding_schema,
    views_schema,
)
from retrieval_pipeline.storage.store import Store, blocks_beside, segments_beside
from retrieval_pipeline.storage.tables import read_space, read_table
from retrieval_pipeline.vectors import check_vectors

# How a process ends that a damaged file led astray. Other ends tell nothing about the file: SIGBUS
# is an I/O error, SIGKILL a lack of memory, SIGABRT often one too, an exit code an error in Python.
CRASHES = (-signal.SIGSEGV, -signal.SIGFPE, -signal.SIGILL)
# Vectors that are checked at a time.
CHECKED_ROWS = 65_536


@dataclass(frozen=True)
class Finding:
    """The result of checking one file or directory.

    Attributes:
        file: Its path.
        problem: What is wrong with it; None if it is sound.
        note: Something worth knowing that is no damage.
        unreadable: Whether the problem is that the file cannot be read; it may be sound.
    """

    file: Path
    problem: str | None
    note: str | None = None
    unreadable: bool = False


def verify(store: Store, sources: Sequence[str] = ()) -> Iterator[Finding]:
    """Yield a finding for every table, build and map, and the pointer to the current build.

    Args:
        store: What to check.
        sources: Names of the sources of the settings. A file that is no table of ours, where the
            manifest of another source would be, is only noted: it may be somebody else's.

    It takes no lock: a damaged file that is gone by the end of its check was replaced by a run,
    and is passed over.
    """
    check_home(store.home)
    for finding in _findings(store, sources):
        if finding.problem is None or finding.unreadable or is_there(finding.file):
            yield finding


def _findings(store: Store, sources: Sequence[str]) -> Iterator[Finding]:
    known = {*sources, *(path.name for path in store.embedding_directories())}
    for judgements in store.all_judgements():
        yield _finding(judgements, lambda path: _check_judgements(store, path))
    for album in store.albums():
        yield _finding(album, _check_album)
    for search in store.saved_searches():
        yield _finding(search, _check_saved_search)
    facts, sidecars = store.fact_tables()
    for path, check in chain(
        zip(store.manifests(), repeat(_check_manifest)),
        zip(facts, repeat(_check_facts)),
        zip(sidecars, repeat(_check_sidecars)),
    ):
        finding = _finding(path, check)
        if finding.problem and path.stem not in known and not is_our_table(path):
            note = f"{path}: no table of this program and of no source: left alone"
            finding = Finding(path, None, note)
        yield finding
    parts, quarantines = store.embedding_tables()
    seen: dict[str, set[str]] = {}
    for part in parts:
        yield _finding(
            part, lambda path: _check_part(path, seen.setdefault(path.parents[1].name, set()))
        )
    for int8_check in store.int8_checks():
        yield _finding(int8_check, _check_int8)
    for part in store.all_view_parts():
        yield _finding(part, _check_view_part)
    for quarantine in quarantines:
        yield _finding(quarantine, _check_quarantine)
    yield from _orphans(store, seen)
    yield from check_builds([*store.all_segments(), *store.all_blocks(), *store.all_builds()])
    for directory in store.maps():
        yield _finding(directory, _check_map)
    if is_there(store.labels):
        yield _finding(store.labels, lambda path: _check_labels(store, path))
    for saved in store.saved_queries():
        yield _finding(saved, _check_saved_query)
    if is_there(store.current_file):
        yield _finding(store.current_file, lambda _: _check_current(store))


def _finding(path: Path, check: Callable[[Path], None]) -> Finding:
    try:
        check(path)
    except OtherVersionError as error:
        return Finding(path, None, str(error))
    except UnreadableError as error:
        return Finding(path, str(error), unreadable=True)
    except RetrievalError as error:
        return Finding(path, str(error))
    return Finding(path, None)


def _orphans(store: Store, embedded: dict[str, set[str]]) -> Iterator[Finding]:
    """Note embeddings that belong to no file, such as those of deleted images."""
    files: set[str] = set()
    try:
        for path in store.manifests():
            files.update(read_table(path, MANIFEST, ["content_id"])["content_id"].to_pylist())
    except StoreError:
        return  # The damaged manifest has a finding; which embeddings it needs is unknown.
    for directory in store.embedding_spaces():
        if orphans := len(embedded.get(directory.name, set()) - files):
            note = f"{directory}: {orphans:,} embeddings belong to no file: `retrieval gc`"
            yield Finding(directory, None, note)


def _check_manifest(path: Path) -> None:
    _check_unique(path, MANIFEST, "path")
    table = read_table(path, MANIFEST)
    _check_content_ids(path, table["content_id"].drop_null())
    _check_values(path, table["status"], Status)
    sound = pc.equal(table["status"], Status.OK.value)
    if not pc.all(pc.equal(sound, pc.is_valid(table["content_id"]))).as_py() and len(table):
        raise StoreError(f"{path}: a file has a content id and was not read, or the reverse")


def _check_facts(path: Path) -> None:
    _check_unique(path, FACTS, "path")
    table = read_table(path, FACTS)
    _check_content_ids(path, table["content_id"])
    _check_values(path, table["taken_from"].drop_null(), Origin)
    for name, most in (("latitude", 90), ("longitude", 180)):
        if not pc.all(pc.less_equal(pc.abs(table[name]), most), min_count=0).as_py():
            raise StoreError(f"{path}: a {name} is out of range")


def _check_sidecars(path: Path) -> None:
    _check_unique(path, SIDECARS, "path")


def _check_quarantine(path: Path) -> None:
    _check_unique(path, QUARANTINE, "content_id")
    table = read_table(path, QUARANTINE)
    _check_content_ids(path, table["content_id"])
    _check_values(path, table["reason"], Reason)


def _check_saved_query(path: Path) -> None:
    read_found(path)


def _check_judgements(store: Store, path: Path) -> None:
    judgements = read_judgements(store, path.stem)
    _check_content_ids(path, pa.array([vote.content_id for vote in judgements], pa.string()))


def _check_album(path: Path) -> None:
    _check_title(path)
    _check_unique(path, ALBUM, "content_id")
    _check_content_ids(path, read_table(path, ALBUM, ["content_id"])["content_id"])


def _check_int8(path: Path) -> None:
    read_int8_check(path)


def _check_saved_search(path: Path) -> None:
    _check_title(path)
    read_saved_search(path)


def _check_labels(store: Store, path: Path) -> None:
    labels = read_labels(store)
    assert labels is not None
    table = labels.table
    _check_content_ids(path, table["content_id"])
    if len(table.group_by(["content_id", "word"]).aggregate([])) < len(table):
        raise StoreError(f"{path}: a picture has a label more than once")
    fine = pc.and_(pc.greater_equal(table["relevance"], 0), pc.less_equal(table["relevance"], 1))
    if not pc.all(fine, min_count=0).as_py():
        raise StoreError(f"{path}: a relevance is out of range")
    words = pa.array(labels.info.asked.words, pa.string())
    if not pc.all(pc.is_in(table["word"], value_set=words), min_count=0).as_py():
        raise StoreError(f"{path}: holds a word that it was not made of")


def _check_title(path: Path) -> None:
    try:
        title_of(path.stem)
    except ValueError:
        raise StoreError(f"{path}: its name stands for no title: move it away") from None


def _check_content_ids(path: Path, ids: pa.Array | pa.ChunkedArray) -> None:
    if not pc.all(pc.match_substring_regex(ids, "^[0-9a-f]{32}$")).as_py() and len(ids):
        raise StoreError(f"{path}: holds a content id that is not 32 hex digits")


def _check_values(path: Path, column: pa.ChunkedArray, allowed: type[StrEnum]) -> None:
    if odd := set(column.to_pylist()) - set(allowed):
        raise StoreError(f"{path}: {min(odd)!r} is none of {', '.join(allowed)}")


def _check_unique(path: Path, schema: pa.Schema, column: str) -> None:
    values = read_table(path, schema, [column])[column].to_pylist()
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise StoreError(f"{path}: {column} {twice[0]!r} appears more than once")


def _read_part(path: Path, schema: Callable[[int], pa.Schema]) -> pa.Table:
    """Read a part of a table whose columns are those of `schema`, and check ids and vectors."""
    space = read_space(path)
    if space.key != path.parents[1].name:
        raise StoreError(f"{path}: its vectors belong to another model ({space.model})")
    table = read_table(path, schema(space.dim))
    _check_content_ids(path, table["content_id"])
    check_vectors(as_matrix(table["embedding"], space.dim), space.dim, f"{path}: vector")
    return table


def _check_view_part(path: Path) -> None:
    table = _read_part(path, views_schema)
    if not are_views(*(table[name].to_numpy() for name in VIEW_COLUMNS)).all():
        raise StoreError(f"{path}: holds a view that is no part of a picture")


def _check_part(path: Path, seen: set[str]) -> None:
    table = _read_part(path, embedding_schema)
    for content in table["content_id"].to_pylist():
        if content in seen:
            raise StoreError(f"{path}: content {content} is embedded more than once")
        seen.add(content)


def _check_map(path: Path) -> None:
    info = read_map_info(path)
    table = read_coordinates(path)
    _check_content_ids(path / "coordinates.parquet", table["content_id"])
    clusters = table["cluster"].to_numpy()
    if len(table) != info.items or not ((clusters >= 0) & (clusters < len(info.clusters))).all():
        raise StoreError(f"{path / 'coordinates.parquet'}: does not match map.json")
    layout = read_neighbours(path)
    if layout is not None and not layout["content_id"].equals(table["content_id"]):
        raise StoreError(f"{path / NEIGHBOURS_FILE}: does not match coordinates.parquet")
    for name in ("basis.npz", "map.html", "map.png"):
        if not is_there(path / name):
            raise StoreError(f"{path / name}: missing: remove {path} and run `retrieval index`")


def check_builds(builds: Sequence[Path]) -> Iterator[Finding]:
    """Yield a finding for each of these segments, blocks and builds, which are read in full.

    They are checked in a child process, since a damaged Annoy file can crash the process that loads
    it. What the child crashes at is damaged; a new child checks the rest.

    Args:
        builds: Segments and blocks before the builds that need them: these are damaged, too, if one
            of those is.

    Raises:
        UnreadableError: The child cannot be started.
    """
    remaining = list(builds)
    while remaining:
        try:
            child = subprocess.Popen(
                python_command(__name__, "main", *(str(path.absolute()) for path in remaining)),
                **child_options(),
                stdout=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise unreadable(remaining[0], f"no process to check it: {error.strerror}") from error
        with child:
            assert child.stdout
            for line in child.stdout:
                yield Finding(remaining.pop(0), *json.loads(line))
        if remaining:
            build = remaining.pop(0)
            problem = f"{build}: its reader ended with exit code {child.returncode}"
            yield Finding(build, problem, unreadable=child.returncode not in CRASHES)


def check_builds_here(paths: Sequence[Path]) -> Iterator[Finding]:
    """Read segments, blocks and builds in this process, which a damaged Annoy file can crash."""
    bad: set[Path] = set()
    seen: set[Path] = set()
    read_block = functools.partial(_read_whole_block, expected=_files_of_blocks(paths))
    checks: dict[str, Callable[[Path], None]]
    checks = {SEGMENTS: _read_whole_segment, BLOCKS: read_block}
    read_build = functools.partial(_read_whole_build, bad=bad, seen=seen)
    for path in paths:
        finding = _finding(path, checks.get(path.parent.name, read_build))
        if finding.problem:
            bad.add(path)
        yield finding


def _read_whole_segment(path: Path) -> None:
    """Open a segment and check all its vectors, and that its name fits its rows.

    Raises:
        RetrievalError: Something is wrong.
    """
    try:
        segment = open_segment(path, path.parents[1].name, rehash=True)
    except (ValueError, TypeError) as error:
        raise BuildError(f"{path}: not what a segment holds ({error})") from None
    start = 0
    for rows in in_float32(segment.vector_index.matrices, CHECKED_ROWS):
        check_vectors(rows, segment.info.dim, f"{path}: from {start:,} on, vector")
        start += len(rows)
    if name_of(segment.info.settings, segment.keys) != path.name:
        raise BuildError(f"{path}: its name is not that of its rows: run `retrieval index`")


def _files_of_blocks(paths: Sequence[Path]) -> dict[Path, FileFacts]:
    """Return what the files beside the blocks must be, as the builds among `paths` say."""
    expected: dict[Path, FileFacts] = {}
    for build in paths:
        if build.parent.name not in (SEGMENTS, BLOCKS):
            # A build that cannot be read has a finding of its own.
            with contextlib.suppress(BuildError, UnreadableError):
                files = read_info(build).shared_files
                expected |= {blocks_beside(build) / name: files[name] for name in files}
    return expected


def _read_whole_block(path: Path, expected: Mapping[Path, FileFacts]) -> None:
    """Read one file beside the blocks.

    Raises:
        RetrievalError: It is not what `expected` says, cannot be read, or is no file of an index.
    """
    if path in expected:
        check_files(path.parent, {path.name: expected[path]}, rehash=True)
    if path.suffix == ".npy":
        load_array(path, np.float32, (None, None))
    else:
        map_table(path)


def _read_whole_build(path: Path, bad: set[Path], seen: set[Path]) -> None:
    """Open a build and check all that it does not share with others, and its content ids.

    Raises:
        RetrievalError: Something is wrong, with it or with what it needs.
    """
    info = read_info(path)
    blocks = blocks_beside(path)
    needed = {segments_beside(path) / segment.name for segment in info.segments}
    needed |= {blocks / name for name in info.shared_files}
    if damaged := sorted(needed & bad):
        raise BuildError(f"{path}: needs what is damaged: {damaged[0]}")
    # What builds have in common is checked once.
    unseen = {name for name in info.shared_files if blocks / name not in seen}
    try:
        check_files(path, info.files, rehash=True)
        open_blocks(blocks, info.blocks, unseen)
        build = Build.open(path, rehash=not info.segments)
    except (ValueError, TypeError) as error:
        raise BuildError(f"{path}: not what a build holds ({error})") from None
    if not info.segments:
        for matrix in build.vector_index.matrices:
            check_vectors(matrix, build.info.dim, f"{path}: vector")
    if build.vocabulary is not None:
        check_vectors(build.vocabulary, build.info.dim, f"{path}: vocabulary")
    ids = build.items["content_id"]
    if pc.count_distinct(ids).as_py() != len(ids):
        raise BuildError(f"{path}: a content id appears more than once")
    seen.update(blocks / name for name in unseen)


def _check_current(store: Store) -> None:
    build = store.current_build()
    if build is None or not is_there(build):
        raise StoreError(f"{store.current_file}: names a build that is not there: {build}")
    try:
        read_info(build)
    except OtherVersionError as error:
        raise StoreError(f"{store.current_file}: {error}") from None
    except BuildError:
        return  # The damaged build itself has a finding.


def main() -> None:
    """Check what the command line names; print a line of JSON for each."""
    for finding in check_builds_here([Path(each) for each in sys.argv[1:]]):
        result = [finding.problem, finding.note, finding.unreadable]
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()
