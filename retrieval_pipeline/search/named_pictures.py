"""Pictures as people name them: by a file, by a path in a source, or by a content id."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest

CONTENT_ID = re.compile("[0-9a-f]{32}")


def find_pictures(searcher: Searcher, names: Sequence[str]) -> dict[str, Location]:
    """Return the content id of each picture that is named, and where its first file is.

    A file inside a source is known by its path, so that it need not be there now. Another file is
    read: it names the indexed picture that has the same bytes.

    Args:
        searcher: Its index must have the pictures.
        names: Files of the file system, paths relative to a source, or content ids.

    Raises:
        QueryError: A line for each name that stands for no indexed picture, or for several.
    """
    stored = stored_files(searcher.settings, names)
    found: dict[str, Location] = {}
    problems = []
    for name in names:
        contents = {name} if CONTENT_ID.fullmatch(name) else stored.get(name, set())
        if not contents and Path(name).is_file():
            try:
                contents = {content_id_of_file(name)}
            except OSError as error:
                problems.append(f"{name}: cannot be read: {error.strerror}")
                continue
        items = searcher.index.find(contents)
        if len(items) == 1:
            (record,) = searcher.index.records(items)
            found[record.content_id] = record.locations[0]
        elif len(items):
            problems.append(f"{name}: is in several sources: write the whole path")
        elif contents:
            problems.append(f"{name}: is not in the index: `retrieval index` takes new files in")
        else:
            problems.append(f"{name}: no such file, path in a source, or content id")
    if problems:
        raise QueryError(*problems)
    return found


def stored_files(settings: Settings, names: Sequence[str]) -> dict[str, set[str]]:
    """Return the content ids that the manifests have for these paths, where they have any.

    Args:
        settings: Name the sources.
        names: Paths of the file system, or relative to a source; equal ones may be in several.
    """
    store = Store(settings.home)
    found: dict[str, set[str]] = {}
    for source in settings.sources:
        root = f"{str(source.path).rstrip('/')}/"
        wanted: dict[str, str] = {}
        for name in names:
            whole = name if "://" in name else os.path.abspath(name)  # noqa: PTH100
            inside = whole.removeprefix(root) if whole.startswith(root) else name
            # It keeps ".." of a path that leads nowhere, and is text in the manifest.
            wanted[to_text(inside)] = name
        manifest = read_manifest(store, source.name)
        rows = manifest.filter(
            pc.and_(
                pc.is_in(manifest["path"], value_set=pa.array([*wanted], pa.string())),
                pc.is_valid(manifest["content_id"]),
            )
        ).select(["path", "content_id"])
        for row in rows.to_pylist():
            found.setdefault(wanted[row["path"]], set()).add(row["content_id"])
    return found
