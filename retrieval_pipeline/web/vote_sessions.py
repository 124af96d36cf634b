"""The sessions of recommenders that votes are taken in: one thread at a time, kept trained."""

import contextlib
import threading
from collections.abc import Iterator

from cachetools import LRUCache

from retrieval_pipeline.recommend.recommender import Recommender
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store

# Recommenders that are kept trained.
SESSIONS = 16


class VoteSessions:
    """The sessions of the recommenders of an index; thread-safe."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._sessions: LRUCache[str, _Session] = LRUCache(SESSIONS)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def session(self, name: str) -> Iterator[Recommender]:
        """Give the session of a recommender to one thread at a time.

        Raises:
            StoreError: Its votes are damaged.
        """
        with self._lock:
            known = self._sessions.setdefault(name, _Session(self._searcher, name))
        with known.opened() as session:
            yield session


class _Session:
    """The session of a recommender, which is not thread-safe, and its votes' last change."""

    def __init__(self, searcher: Searcher, name: str) -> None:
        self._searcher = searcher
        self._name = name
        self._lock = threading.Lock()
        self._session: Recommender | None = None
        self._changed = 0

    @contextlib.contextmanager
    def opened(self) -> Iterator[Recommender]:
        """Give the session, with the votes that others stored; raises StoreError."""
        with self._lock:
            if self._session is None:
                self._session = Recommender(self._searcher, self._name)
            elif self._last_change() != self._changed:
                self._session.refresh()
            try:
                yield self._session
            finally:
                self._changed = self._last_change()

    def _last_change(self) -> int:
        path = Store(self._searcher.settings.home).judgements(self._name)
        return path.stat().st_mtime_ns if path.exists() else 0
