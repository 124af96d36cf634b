"""Repair: damaged tables are rebuilt from sound builds, builds and maps from sound tables.

Nothing is deleted: damaged files move to `damaged/` under home, where they stay until
`retrieval gc`.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder, load_settings_encoder
from retrieval_pipeline.errors import BuildError, StoreError, UnreadableError
from retrieval_pipeline.index.arrow import as_matrix
from retrieval_pipeline.index.build import Build, current_or_none
from retrieval_pipeline.index.views import are_views
from retrieval_pipeline.ingest.manifest import Status
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.pipeline.publish import update_index, update_map
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.atomic import discard, explained, scratch
from retrieval_pipeline.storage.parts import PICTURES, VIEWS, PartsTable
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import MANIFEST, VIEW_COLUMNS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_space, read_table, write_table
from retrieval_pipeline.vectors import UNIT_TOLERANCE, VectorSpace


@dataclass(frozen=True)
class Repaired:
    """A damaged file or directory, and what was done about it.

    Attributes:
        file: Its path.
        done: What was done, for people to read.
    """

    file: Path
    done: str


def repair(settings: Settings, *, progress: Progress | None = None) -> list[Repaired]:
    """Repair every file that `verify` finds damaged, then bring the index and the map up to date.

    A manifest is restored from the newest sound build, as the files were at its time. Embeddings
    are restored from the sound rows of the damaged part and from the sound builds of the same
    vector space. The next `retrieval index` makes the rest: it hashes files and embeds images
    again. Votes exist nowhere else, so that a damaged table of votes is left alone.

    Raises:
        UnreadableError: A file cannot be read, and may be sound; nothing was changed.
        StoreError: Another run is writing, home belongs to another user or has directories that
            cannot be written (nothing was changed), or the file system refused.
        EncoderError: A new index needs the vocabulary encoded, and the model cannot be loaded.
    """
    store = Store(settings.home)
    _check_owner(store.home)
    # Nothing is swept either before it is known that the repair can be done.
    with store.locked(sweep=False):
        findings = [each for each in verify(store, settings.source_names) if each.problem]
        for finding in findings:
            if finding.unreadable:
                raise UnreadableError(f"nothing was repaired, since {finding.problem}")
        bad = [finding.file for finding in findings]
        if bad:
            _check_movable(store, bad)
            _check_permissions(store.home)
        store.sweep()
        sound = [build for build in store.all_builds() if build not in bad]
        repaired = [
            *_repair_manifests(store, bad, sound),
            *_repair_parts(store.embedding_tables()[0], PICTURES, store, bad, sound),
            *_repair_parts(store.all_view_parts(), VIEWS, store, bad, sound),
            *_set_aside(store, _made_anew(store), bad),
            *_set_aside(store, [*store.all_segments(), *store.all_blocks()], bad),
            *_set_builds_aside(store, bad, sound),
        ]
        for directory in store.maps():
            if directory in bad:
                discard(directory)
                repaired.append(Repaired(directory, "removed, to be drawn again"))
        if repaired:
            repaired.append(_rebuild(settings, store, progress))
    return repaired


def _check_owner(home: Path) -> None:
    """Check that files made here will belong to the user to whom home belongs.

    Raises:
        StoreError: They would belong to another user, who could lock the owner out.
    """
    with explained(home):
        owner = home.stat().st_uid
        if owner == os.geteuid():
            return
        # Some file systems give all files to one user, whoever writes them.
        with scratch(home) as probe:
            probe.touch()
            mine = probe.stat().st_uid
    if mine != owner:
        raise StoreError(
            f"{home} belongs to the user with the id {owner}, and this is the user with the id "
            f"{mine}: nothing was changed. Repair it as its owner"
        )


def _check_permissions(home: Path) -> None:
    """Check that files can be made and moved in every directory of home.

    Raises:
        StoreError: One directory may not be written.
    """
    with explained(home, "repaired"):
        for directory, _, _ in os.walk(home):
            if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
                raise StoreError(
                    f"{directory}: may not be written: nothing was repaired. Give its owner the "
                    "right to"
                )


def _check_movable(store: Store, bad: Sequence[Path]) -> None:
    """Check that what is damaged is in home, and that others have put nothing into it.

    Raises:
        StoreError: A directory holds files of others, or is behind a symbolic link.
    """
    for path in bad:
        if not store.is_removable(path):
            raise StoreError(
                f"{path}: is damaged, but it holds files that are not of this program, or is "
                "behind a symbolic link: nothing was repaired. Move it away, then repair again"
            )


def _repair_manifests(
    store: Store, bad: Sequence[Path], sound: Sequence[Path]
) -> Iterator[Repaired]:
    builds = _newest_first(store, sound)
    for manifest in store.manifests():
        if manifest not in bad:
            continue
        store.set_aside(manifest)
        rows = _files_of(builds[0], manifest.stem) if builds else MANIFEST.empty_table()
        if len(rows):
            write_table(manifest, rows)
            yield Repaired(manifest, f"{len(rows):,} files taken from the build {builds[0].name}")
        else:
            yield Repaired(manifest, "set aside; the next `retrieval index` makes it again")


def _newest_first(store: Store, builds: Sequence[Path]) -> list[Path]:
    """Return the builds, newest first, but the current one before all others."""
    current = current_or_none(store)
    by_age = sorted(builds, key=lambda build: build.name, reverse=True)
    return sorted(by_age, key=lambda build: build != current)


def _files_of(build: Path, source: str) -> pa.Table:
    """Return the manifest of `source` as it was when a build was made."""
    items = Build.open(build).items
    locations = items["locations"].combine_chunks()
    files = pc.list_flatten(locations)
    owners = pc.list_parent_indices(locations)
    mine = pc.equal(pc.struct_field(files, "source"), source)
    files, owners = files.filter(mine), owners.filter(mine)
    columns = {name: pc.struct_field(files, name) for name in ("path", "size", "mtime_ns")}
    columns["content_id"] = items["content_id"].combine_chunks().take(owners)
    columns["status"] = pa.repeat(pa.scalar(Status.OK.value), len(files))
    columns["error"] = pa.nulls(len(files), pa.string())
    return pa.table([columns[field.name] for field in MANIFEST], schema=MANIFEST).sort_by("path")


def _repair_parts(
    parts: Sequence[Path],
    table: PartsTable,
    store: Store,
    bad: Sequence[Path],
    sound: Sequence[Path],
) -> Iterator[Repaired]:
    known: dict[str, set[tuple[object, ...]]] = {}
    for part in sorted(parts, key=lambda part: part in bad):
        seen = known.setdefault(part.parents[1].name, set())
        if part not in bad:
            space = read_space(part)
            seen.update(_keys(read_table(part, table.schema(space.dim), list(table.key)), table))
            continue
        builds = [build for build in sound if build.parent.name == part.parents[1].name]
        stored = [_sound_rows(part, table), *(_rows_of(build, table) for build in builds)]
        found = [rows for rows in stored if rows is not None]
        store.set_aside(part)
        count = 0
        if found:
            rows = pa.concat_tables([rows for rows, _ in found])
            rows = rows.filter(pa.array(_first_ones(_keys(rows, table), seen), pa.bool_()))
            if count := len(rows):
                write_table(part, rows, found[0][1])
        yield Repaired(part, f"{count:,} embeddings kept; what is missing will be made again")


def _keys(rows: pa.Table, table: PartsTable) -> Iterator[tuple[object, ...]]:
    return zip(*(rows[name].to_pylist() for name in table.key), strict=True)


def _first_ones(keys: Iterable[tuple[object, ...]], seen: set[tuple[object, ...]]) -> list[bool]:
    """Return for each key whether it is not in `seen`, and add it there."""
    new = []
    for key in keys:
        new.append(key not in seen)
        seen.add(key)
    return new


def _sound_rows(part: Path, table: PartsTable) -> tuple[pa.Table, VectorSpace] | None:
    """Return the sound rows of a part and its vector space.

    None if the part cannot be read at all, or belongs to another vector space than its directory.
    """
    try:
        space = read_space(part)
        rows = read_table(part, table.schema(space.dim))
    except StoreError:
        return None
    if space.key != part.parents[1].name:
        return None
    lengths = np.linalg.norm(as_matrix(rows["embedding"], space.dim), axis=1)
    is_id = pc.match_substring_regex(rows["content_id"], "^[0-9a-f]{32}$")
    good = np.abs(lengths - 1) <= UNIT_TOLERANCE
    if table is VIEWS:
        good &= are_views(*(rows[name].to_numpy() for name in VIEW_COLUMNS))
    return rows.filter(pc.and_(pa.array(good), is_id.combine_chunks())), space


def _rows_of(path: Path, table: PartsTable) -> tuple[pa.Table, VectorSpace]:
    """Return the items of a build or their views as rows of a table, and their vector space."""
    build = Build.open(path)
    schema = table.schema(build.info.dim)
    items = len(build)
    rows, numbers = build.items, np.arange(items)
    if table is VIEWS:
        owners = rows["content_id"].take(build.views["item"])
        rows = build.views.append_column("content_id", owners)
        numbers = items + np.arange(len(rows))
    vectors = build.vectors(numbers).reshape(-1)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors), build.info.dim)
    rows = rows.append_column("embedding", embedding)
    return rows.select(schema.names).cast(schema), build.info.space


def _made_anew(store: Store) -> list[Path]:
    """Return the tables that the next `retrieval index` makes again, and the saved queries."""
    facts, sidecars = store.fact_tables()
    return [*store.embedding_tables()[1], *facts, *sidecars, store.labels, *store.saved_queries()]


def _set_aside(store: Store, files: Sequence[Path], bad: Sequence[Path]) -> Iterator[Repaired]:
    for file in files:
        if file in bad:
            store.set_aside(file)
            yield Repaired(file, "set aside, to begin anew")


def _set_builds_aside(
    store: Store, bad: Sequence[Path], sound: Sequence[Path]
) -> Iterator[Repaired]:
    """Move damaged builds away, and let CURRENT name the newest sound one."""
    current = current_or_none(store)
    for build in store.all_builds():
        if build in bad:
            store.set_aside(build)
            yield Repaired(build, "set aside; the index is made again from the tables")
    if is_there(store.current_file) and current not in sound:
        builds = _newest_first(store, sound)
        if builds:
            store.publish(builds[0])
            yield Repaired(store.current_file, f"names {builds[0].name} now")
        else:
            store.set_aside(store.current_file)
            yield Repaired(store.current_file, "set aside: there is no sound build")


def _rebuild(settings: Settings, store: Store, progress: Progress | None) -> Repaired:
    """Bring the index and the map up to date with the tables."""
    space = describe_encoder(settings).space
    load = functools.cache(functools.partial(load_settings_encoder, settings, space))
    try:
        report = update_index(settings, space, load, progress=progress)
    except BuildError as error:
        return Repaired(store.current_file, str(error))
    update_map(settings, report.build, progress=progress)
    what = "made from the tables" if report.published else "still what the tables say"
    return Repaired(report.build, f"{what}: {report.info.items:,} images")
