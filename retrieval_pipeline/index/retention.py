"""Retention: which old builds are removed, and when."""

import contextlib
import fcntl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from retrieval_pipeline.errors import BuildError, UnreadableError
from retrieval_pipeline.index.blocks import files_of
from retrieval_pipeline.index.build_info import INFO_FILE, read_info
from retrieval_pipeline.storage.atomic import discard
from retrieval_pipeline.storage.store import Store, blocks_beside, segments_beside

# How long a replaced build stays at least: a process that has read its name can still open it.
GRACE = timedelta(hours=1)


def retire_builds(store: Store, grace: timedelta = GRACE) -> list[Path]:
    """Remove the old builds (see `old_builds`) that no process has open, and return their paths.

    What no build needs after that goes with them (see `orphans`).

    Raises:
        StoreError: CURRENT is damaged, or a build cannot be removed.
    """
    removed = [build for build in old_builds(store, grace) if remove_build(build)]
    for path in orphans(store, store.all_builds()):
        discard(path)
    return removed


def orphans(store: Store, builds: Sequence[Path]) -> list[Path]:
    """Return the segments and blocks that none of `builds`, and no publication, needs.

    Killed runs leave them, and builds that were removed. Only the holder of the lock may ask: a run
    writes segments before the build that needs them. There are none in a vector space with a build
    whose list cannot be read, for nobody knows what that one needs.
    """
    needed: set[Path] = set()
    unknown: set[Path] = set()
    for collection in store.engine_collections():
        from retrieval_pipeline.index.milvus.ledger import Ledger  # for homes with an engine alone

        ledger = Ledger(collection)
        if (published := ledger.published()) is not None:
            blocks = store.blocks(published.space)
            needed.update(blocks / name for name in files_of(ledger.blocks()))
    for build in builds:
        try:
            info = read_info(build)
        except (BuildError, UnreadableError):
            unknown.add(build.parent)
            continue
        needed.update(segments_beside(build) / segment.name for segment in info.segments)
        needed.update(blocks_beside(build) / name for name in info.shared_files)
    return [
        path
        for path in (*store.all_segments(), *store.all_blocks())
        if path not in needed and path.parents[1] not in unknown and store.is_removable(path)
    ]


def old_builds(store: Store, grace: timedelta = GRACE) -> list[Path]:
    """Return the builds that were replaced longer than `grace` ago.

    The current build is never old. In each vector space the newest build that is not the current
    one is not old either, so that people can go back to it. A build
    whose directory holds files of others is never old either.

    Raises:
        StoreError: CURRENT is damaged.
    """
    current = store.current_build()
    spaces: dict[Path, list[Path]] = {}
    for build in store.all_builds():
        spaces.setdefault(build.parent, []).append(build)
    old = []
    for builds in spaces.values():
        others = [build for build in builds if build != current]
        for build in others[:-1]:
            successor = builds[builds.index(build) + 1]
            replaced = datetime.fromtimestamp(successor.stat().st_mtime, UTC)
            if datetime.now(UTC) - replaced >= grace and store.is_removable(build):
                old.append(build)
    return old


def remove_build(build: Path) -> bool:
    """Remove a build unless a process has it open; tell whether it was removed.

    Raises:
        StoreError: The file system refused.
    """
    with _lock_if_unused(build) as free:
        if free:
            discard(build)
    return free


def is_open(build: Path) -> bool:
    """Tell whether a process has the build open."""
    with _lock_if_unused(build) as free:
        return not free


@contextlib.contextmanager
def _lock_if_unused(build: Path) -> Iterator[bool]:
    """Tell whether no process has the build open, and keep others from opening it meanwhile."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context((build / INFO_FILE).open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError:
            # The build has no build.json, or the file system knows no locks (see build.Build).
            yield True
        else:
            yield True
