"""The table of images that could not be used, and the rule when they are tried again."""

import contextlib
import functools
import importlib.metadata
from datetime import UTC, datetime

import pyarrow as pa

from retrieval_pipeline.images.errors import ImageError, Reason
from retrieval_pipeline.paths import printable
from retrieval_pipeline.storage.schemas import QUARANTINE
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import (
    read_quarantine,
    write_table,
)
from retrieval_pipeline.vectors import VectorSpace

# What is said of an image that was being decoded when its run ended.
UNFINISHED = "its run ended before it was decoded: the next one tries again"


class Quarantine:
    """The images of one source that could not be used, by content id.

    Attributes:
        added: Content ids that were added since the table was read.
    """

    def __init__(self, store: Store, space: VectorSpace, source: str) -> None:
        self._store, self._space, self._source = store, space, source
        self._stored: dict[str, dict[str, object]] = {}
        self._rows: dict[str, dict[str, object]] = {}
        self._unfinished: dict[str, dict[str, object]] = {}
        self.added = 0

    @classmethod
    def read(cls, store: Store, space: VectorSpace, source: str, wanted: set[str]) -> "Quarantine":
        """Read the table and keep the rows of the content ids in `wanted`.

        The others belong to content that is gone from the source or has an embedding by now.

        Raises:
            StoreError: The table is damaged.
        """
        quarantine = cls(store, space, source)
        rows = read_quarantine(store, space, source).to_pylist()
        quarantine._stored = {row["content_id"]: row for row in rows}
        quarantine._rows = {row["content_id"]: row for row in rows if row["content_id"] in wanted}
        return quarantine

    def __len__(self) -> int:
        return len(self._rows)

    def settled(self) -> set[str]:
        """Return the content ids that need no new try: the installed software has failed on them.

        An unreadable file is always tried again, since the fault may be the disk's.
        """
        return {
            content
            for content, row in self._rows.items()
            if row["tried_with"] == software() and row["reason"] != Reason.UNREADABLE
        }

    def add(self, content: str, path: str, error: ImageError) -> None:
        """Note that the image of this content id, found at `path`, failed once more."""
        self.added += content not in self._rows
        self._rows[content] = self._row(content, path, error)
        self._unfinished.pop(content, None)

    def add_unfinished(self, content: str, path: str) -> None:
        """Note that an image is being decoded, until it is added or discarded.

        If the run ends before that, the next one tries the image again, after all others.
        """
        if content not in self._unfinished:
            row = self._row(content, path, ImageError(Reason.TIMED_OUT, UNFINISHED))
            self._unfinished[content] = row | {"tried_with": ""}

    def _row(self, content: str, path: str, error: ImageError) -> dict[str, object]:
        former = self._rows.get(content)
        return {
            "content_id": content,
            "path": path,
            "reason": error.reason.value,
            # A library's message may quote bytes of the file that no table can hold.
            "detail": printable(error.detail),
            "attempts": (former["attempts"] if former else 0) + 1,  # type: ignore[operator]
            "last_tried": datetime.now(UTC),
            "tried_with": software(),
        }

    def tried(self) -> set[str]:
        """Content ids that were tried before."""
        return set(self._rows)

    def discard(self, content: str) -> None:
        """Remove an image that could be used after all."""
        self._rows.pop(content, None)
        self._unfinished.pop(content, None)

    def publish(self) -> None:
        """Write the table if it changed.

        Raises:
            StoreError: The file system refused.
        """
        current = self._rows | self._unfinished
        if current != self._stored:
            rows = sorted(current.values(), key=lambda row: str(row["path"]))
            table = pa.Table.from_pylist(rows, schema=QUARANTINE)
            write_table(self._store.quarantine(self._space, self._source), table, self._space)
            self._stored = current


@functools.cache
def software() -> str:
    """Return the versions of all packages that decide whether an image can be decoded."""
    found = []
    for name in ("retrieval-pipeline", "pillow", "pillow-heif", "pillow-jxl-plugin", "rawpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)
