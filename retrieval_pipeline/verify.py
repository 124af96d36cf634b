"""Check every stored file against its contract, reading all of it."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import BuildError, RetrievalError, StoreError
from retrieval_pipeline.index import Build
from retrieval_pipeline.items import as_matrix
from retrieval_pipeline.judgements import read_judgements
from retrieval_pipeline.latent_map import read_coordinates, read_map_info
from retrieval_pipeline.store import (
    MANIFEST,
    QUARANTINE,
    Store,
    embedding_schema,
    read_space,
    read_table,
)
from retrieval_pipeline.vectors import check_vectors


@dataclass(frozen=True)
class Finding:
    """One file and what is wrong with it (None: nothing)."""

    file: Path
    problem: str | None


def verify(store: Store) -> Iterator[Finding]:
    """Yield a finding for every table, build and map, and the pointer to the current build."""
    for judgements in store.all_judgements():
        yield _finding(judgements, lambda path: _check_judgements(store, path))
    for manifest in store.manifests():
        yield _finding(manifest, _check_manifest)
    parts, quarantines = store.embedding_tables()
    seen: dict[str, set[str]] = {}
    for part in parts:
        yield _finding(
            part, lambda path: _check_part(path, seen.setdefault(path.parents[1].name, set()))
        )
    for quarantine in quarantines:
        yield _finding(quarantine, lambda path: _check_unique(path, QUARANTINE, "content_id"))
    for build in store.all_builds():
        yield _finding(build, _check_build)
    for directory in store.maps():
        yield _finding(directory, _check_map)
    if store.current_file.exists():
        yield _finding(store.current_file, lambda _: _check_current(store))


def _finding(path: Path, check: Callable[[Path], None]) -> Finding:
    try:
        check(path)
    except RetrievalError as error:
        return Finding(path, str(error))
    return Finding(path, None)


def _check_manifest(path: Path) -> None:
    _check_unique(path, MANIFEST, "path")
    _check_content_ids(path, read_table(path, MANIFEST)["content_id"].drop_null())


def _check_judgements(store: Store, path: Path) -> None:
    judgements = read_judgements(store, path.stem)
    _check_content_ids(path, pa.array([vote.content_id for vote in judgements], pa.string()))


def _check_content_ids(path: Path, ids: pa.Array | pa.ChunkedArray) -> None:
    if not pc.all(pc.match_substring_regex(ids, "^[0-9a-f]{32}$")).as_py() and len(ids):
        raise StoreError(f"{path}: holds a content id that is not 32 hex digits")


def _check_unique(path: Path, schema: pa.Schema, column: str) -> None:
    values = read_table(path, schema, [column])[column].to_pylist()
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise StoreError(f"{path}: {column} {twice[0]!r} stands there more than once")


def _check_part(path: Path, seen: set[str]) -> None:
    space = read_space(path)
    if space.key != path.parents[1].name:
        raise StoreError(f"{path}: its vectors belong to another model ({space.model})")
    table = read_table(path, embedding_schema(space.dim))
    check_vectors(as_matrix(table["embedding"], space.dim), space.dim, f"{path}: vector")
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
        raise StoreError(f"{path / 'coordinates.parquet'}: not as map.json says")
    for name in ("basis.npz", "map.html", "map.png"):
        if not (path / name).is_file():
            raise StoreError(f"{path / name}: missing: remove {path} and run `retrieval index`")


def _check_build(path: Path) -> None:
    # In a process of its own: a damaged Annoy file can crash the one that loads it.
    child = subprocess.run(
        [sys.executable, "-m", __name__, str(path)], capture_output=True, text=True, check=False
    )
    if child.returncode:
        lines = child.stderr.strip().splitlines() or [f"reading it ended with {child.returncode}"]
        raise BuildError(lines[-1])


def _read_whole_build(path: Path) -> None:
    """Open a build and check every vector and content id in it."""
    build = Build.open(path, rehash=True)
    for chunk in build.items.column("embedding").chunks:
        check_vectors(as_matrix(chunk, build.info.dim), build.info.dim, f"{path}: vector")
    ids = build.items["content_id"]
    if pc.count_distinct(ids).as_py() != len(ids):
        raise BuildError(f"{path}: a content id stands there more than once")


def _check_current(store: Store) -> None:
    build = store.current_build()
    if build is None or not build.is_dir():
        raise StoreError(f"{store.current_file}: names a build that is not there: {build}")


if __name__ == "__main__":
    try:
        _read_whole_build(Path(sys.argv[1]))
    except RetrievalError as error:
        sys.exit(str(error))
