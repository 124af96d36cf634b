"""Garbage collection: tables of former sources, unused embeddings, old builds and maps.

It can be killed at any moment: a table or build is removed as a whole, and embeddings that are
still needed are written again before the parts that held them are removed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.index.retention import (
    GRACE,
    is_open,
    old_builds,
    orphans,
    remove_build,
)
from retrieval_pipeline.ingest.small_parts import replace_parts
from retrieval_pipeline.latent_map.coordinates import orphaned_maps
from retrieval_pipeline.storage.atomic import discard, explained
from retrieval_pipeline.storage.home import is_our_table
from retrieval_pipeline.storage.names import INT8_CHECK, QUARANTINE_NAME
from retrieval_pipeline.storage.parts import (
    PICTURES,
    VIEWS,
    PartsTable,
    merged_part,
    parts_in,
)
from retrieval_pipeline.storage.reading import is_there, listed
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_space, read_table
from retrieval_pipeline.vectors import VectorSpace

# Most rows of a merged part: 100 MB at 768 dimensions, in memory while it is written.
MERGED_ROWS = 32_768


@dataclass(frozen=True)
class Freed:
    """One thing that was removed, or would be in a dry run.

    Attributes:
        path: Where it was; for parts that were merged, the part that holds their rows now.
        bytes: Disk space freed; for merged parts in a dry run an estimate.
        why: Why it is not needed.
    """

    path: Path
    bytes: int
    why: str


def collect(
    store: Store,
    sources: Sequence[str],
    *,
    only_space: VectorSpace | None = None,
    grace: timedelta = GRACE,
    dry_run: bool = False,
    wait: bool = False,
) -> list[Freed]:
    """Remove what the sources of the settings do not need, and return what was removed.

    That is: manifests, facts and quarantine tables of other sources; embeddings of images that
    none of the `sources` holds; builds that were replaced longer than `grace` ago, unless a process
    has them open, and their maps; and what killed runs and repairs left behind. Small parts are
    merged. Votes, albums and saved searches are never touched.

    Args:
        store: Its lock is taken.
        sources: Names of the sources of the settings.
        only_space: Remove embeddings and builds of all other vector spaces, except the current
            build. None keeps all spaces, so that people can go back to another model.
        grace: How long ago a build must have been replaced.
        dry_run: Remove nothing; return what would be removed.
        wait: Wait for a run that is writing instead of failing.

    Raises:
        StoreError: Another run is writing, a table is damaged, the directory is no home, or the
            file system refused.
    """
    with store.locked(wait=wait, sweep=False):
        # Read first, so that nothing is removed if a manifest is damaged.
        needed = _needed_ids(store, sources)
        steps = chain(
            _leftovers(store, dry_run),
            _former_tables(store, sources, dry_run),
            _former_spaces(store, only_space, dry_run),
            _builds_and_maps(store, only_space, grace, dry_run),
            # Last, since it writes, and the steps before it free space.
            _embeddings(store, sources, only_space, needed, dry_run),
        )
        return list(steps)


def _needed_ids(store: Store, sources: Sequence[str]) -> pa.Array:
    columns = [read_manifest(store, source)["content_id"] for source in sources]
    chunks = [chunk for column in columns for chunk in column.chunks]
    return pc.drop_null(pc.unique(pa.chunked_array(chunks, pa.string())))


def _leftovers(store: Store, dry_run: bool) -> Iterator[Freed]:
    for path in store.leftovers():
        yield Freed(path, _size(path), "left by a run that was killed")
    if not dry_run:
        store.sweep()
    for path in filter(store.is_removable, store.damaged_files()):
        yield _remove(path, "set aside by a repair", dry_run)
        if not dry_run:
            _remove_empty(path.parent, store.home)


def _former_tables(store: Store, sources: Sequence[str], dry_run: bool) -> Iterator[Freed]:
    for table in (*store.manifests(), *chain.from_iterable(store.fact_tables())):
        # A person may have put a table of their own there.
        if table.stem not in sources and store.is_removable(table) and is_our_table(table):
            yield _remove(table, "its source is not in the settings", dry_run)


def _former_spaces(store: Store, only_space: VectorSpace | None, dry_run: bool) -> Iterator[Freed]:
    for directory in store.embedding_spaces():
        is_other = only_space is not None and directory.name != only_space.key
        # A check that refused eight bits is not made again.
        is_refusal = {path.name for path in directory.iterdir()} == {INT8_CHECK}
        if is_other and not is_refusal and store.is_removable(directory):
            yield _remove(directory, "of a model that the settings do not name", dry_run)


def _embeddings(
    store: Store,
    sources: Sequence[str],
    only_space: VectorSpace | None,
    needed: pa.Array,
    dry_run: bool,
) -> Iterator[Freed]:
    """Remove unused rows and merge small parts in all spaces that stay."""
    seen: dict[tuple[str, PartsTable], set[tuple[object, ...]]] = {}
    for directory in store.embedding_directories():
        space, source = directory.parent.name, directory.name
        if not store.is_inside(directory):
            continue
        if only_space is not None and space != only_space.key:
            continue
        # Without a manifest all rows may be needed; the next run writes one.
        unknown = source in sources and not is_there(store.manifest(source))
        for table in (PICTURES, VIEWS):
            parts, replaced = parts_in(directory, table.names)
            for part in replaced:
                yield _remove(part, "its rows are in a larger part", dry_run)
            known = seen.setdefault((space, table), set())
            chosen = {
                part: _chosen_rows(part, table, None if unknown else needed, known)
                for part in parts
            }
            for group in _groups(chosen):
                yield _merge(group, table, chosen, dry_run)
        if source not in sources:
            for quarantine in listed(directory, QUARANTINE_NAME):
                yield _remove(quarantine, "its source is not in the settings", dry_run)
            if not dry_run and not any(directory.iterdir()):
                directory.rmdir()


def _chosen_rows(
    part: Path, table: PartsTable, needed: pa.Array | None, seen: set[tuple[object, ...]]
) -> npt.NDArray[np.bool_]:
    """Return which rows of a part to keep, bool (rows,): needed, and not in an earlier part.

    `seen` holds the keys of the rows of earlier parts; those of this one are added. If `needed` is
    None, all rows are needed.
    """
    space = read_space(part)
    if space.key != part.parents[1].name:
        raise StoreError(f"{part}: its vectors belong to another model: run `retrieval verify`")
    rows = read_table(part, table.schema(space.dim), list(table.key))
    ids = rows["content_id"]
    first = np.zeros(len(ids), bool)
    for row, key in enumerate(zip(*(rows[name].to_pylist() for name in table.key), strict=True)):
        first[row] = key not in seen
        seen.add(key)
    if needed is None:
        return first
    wanted: npt.NDArray[np.bool_] = pc.is_in(ids, value_set=needed).to_numpy()
    return first & wanted


def _groups(chosen: dict[Path, npt.NDArray[np.bool_]]) -> Iterator[list[Path]]:
    """Yield groups of neighbouring parts, each to be written as one part.

    Large parts of which every row is kept are left alone.
    """
    group: list[Path] = []
    rows = 0
    for part, keep in chosen.items():
        large = keep.all() and len(keep) >= MERGED_ROWS // 2
        if large or rows + keep.sum() > MERGED_ROWS:
            yield from _worth_writing(group, chosen)
            group, rows = [], 0
        if not large:
            group.append(part)
            rows += int(keep.sum())
    yield from _worth_writing(group, chosen)


def _worth_writing(
    group: list[Path], chosen: dict[Path, npt.NDArray[np.bool_]]
) -> Iterator[list[Path]]:
    if len(group) > 1 or any(not chosen[part].all() for part in group):
        yield group


def _merge(
    group: list[Path], table: PartsTable, chosen: dict[Path, npt.NDArray[np.bool_]], dry_run: bool
) -> Freed:
    """Write the chosen rows of neighbouring parts as one part, which replaces them."""
    target = merged_part(group)
    rows = sum(len(chosen[part]) for part in group)
    kept = sum(int(chosen[part].sum()) for part in group)
    before = sum(map(_size, group))
    after = before * kept // max(rows, 1)
    if not dry_run:
        if kept:
            space = read_space(group[0])
            schema = table.schema(space.dim)
            tables = [read_table(part, schema).filter(pa.array(chosen[part])) for part in group]
            after = _size(replace_parts(group, pa.concat_tables(tables), space))
        else:
            for part in group:
                discard(part)
    what = f"{len(group)} parts in one" if len(group) > 1 and kept else "embeddings"
    gone = f"{rows - kept:,} of {rows:,} belong to no file" if rows > kept else ""
    return Freed(target, max(before - after, 0), ": ".join(filter(None, (what, gone))))


def _builds_and_maps(
    store: Store, only_space: VectorSpace | None, grace: timedelta, dry_run: bool
) -> Iterator[Freed]:
    current = store.current_build()
    reasons = dict.fromkeys(old_builds(store, grace), "replaced by a newer build")
    if only_space is not None:
        for build in store.all_builds():
            is_other = build.parent.name != only_space.key and build != current
            if is_other and store.is_removable(build):
                reasons[build] = "of a model that the settings do not name"
    gone = set()
    for build, why in reasons.items():
        freed = Freed(build, _size(build), why)
        if not is_open(build) if dry_run else remove_build(build):
            gone.add(build)
            yield freed
    for path in orphans(store, [build for build in store.all_builds() if build not in gone]):
        yield _remove(path, "no index needs it", dry_run)
    for directory in orphaned_maps(store, set(store.all_builds()) - gone):
        yield _remove(directory, "the map of a build that is gone", dry_run)


def _remove(path: Path, why: str, dry_run: bool) -> Freed:
    freed = Freed(path, _size(path), why)
    if not dry_run:
        discard(path)
    return freed


def _remove_empty(directory: Path, home: Path) -> None:
    """Remove a directory below home, and those above it, as far as they are empty."""
    while directory != home and not any(directory.iterdir()):
        with explained(directory, "removed"):
            directory.rmdir()
        directory = directory.parent


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
