"""Queries that the settings keep: their hits, and which of them are new since the last time."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retrieval_pipeline.config.settings import SavedQuery
from retrieval_pipeline.errors import CommandError, QueryError, StoreError
from retrieval_pipeline.processes import tell_command
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.results import Answer, answer_json
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.reading import reading
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.stored_model import StoredModel

# What is told of new hits must not keep the pipeline for ever.
NOTIFY_SECONDS = 60.0


class FoundSoFar(StoredModel):
    """What a saved query has found so far.

    Attributes:
        asked: What was asked, and of which model; another question begins anew.
        hits: When each content id was found first.
    """

    asked: str
    hits: dict[str, datetime]


@dataclass(frozen=True)
class SavedAnswer:
    """The answer to a saved query.

    Attributes:
        name: Of the query.
        answer: All its hits.
        new: The answer with only those hits that were never found before; none the first time.
    """

    name: str
    answer: Answer
    new: Answer


def query_of(saved: SavedQuery) -> Query:
    """Return what a saved query asks.

    Raises:
        QueryError: One of its dates is none.
    """
    try:
        return Query.of(saved.model_dump(exclude={"name", "k", "notify"}))
    except QueryError as error:
        raise QueryError(f'saved query "{saved.name}": {error}') from None


def run_saved_query(searcher: Searcher, saved: SavedQuery) -> SavedAnswer:
    """Answer a saved query, tell its command of new hits, and remember what was found.

    It is remembered last: news that could not be told are news again the next time. Of its sources
    it asks those that are indexed.

    Raises:
        QueryError: It cannot be answered, or its command failed.
        ImageError: One of its pictures cannot be used.
        EncoderError: The model cannot be had.
        StoreError: What it found before is damaged or cannot be written.
    """
    store = Store(searcher.settings.home)
    query = query_of(saved)
    indexed = tuple(name for name in query.sources if name in searcher.index.info.sources)
    if query.sources and not indexed:
        # Not the first time yet: else all that its sources have would be news some day.
        index = searcher.index
        nothing = Answer(query, (), index.info.model, index.name, {})
        return SavedAnswer(saved.name, nothing, nothing)
    answer = searcher.answer(replace(query, sources=indexed), saved.k)
    asked = json.dumps([_asked(saved), answer.model])
    former = read_found(store.saved_query(saved.name))
    same = former is not None and former.asked == asked
    known: Mapping[str, datetime] = former.hits if former and same else {}
    unseen = [hit for hit in answer.hits if hit.content_id not in known]
    new = replace(answer, hits=tuple(unseen) if same else ())
    if new.hits and saved.notify:
        _notify(saved, new)
    if unseen or not same:
        now = datetime.now(UTC)
        found = FoundSoFar(asked=asked, hits={**known, **{hit.content_id: now for hit in unseen}})
        with replacing(store.saved_query(saved.name)) as temporary:
            temporary.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    return SavedAnswer(saved.name, answer, new)


def _asked(saved: SavedQuery) -> dict[str, Any]:
    """Return the fields that make up the question: another one begins anew.

    Fields that came with a later version count only if they are set, so that a query goes on where
    an earlier version left it.
    """
    return {
        name: value
        for name, value in saved.model_dump(mode="json", exclude={"notify"}).items()
        if name in _FIRST_FIELDS or getattr(saved, name) != SavedQuery.model_fields[name].default
    }


_FIRST_FIELDS = frozenset(
    ("name", "text", "images", "plus", "minus", "sources", "paths", "k", "min_relevance")
)


def read_found(file: Path) -> FoundSoFar | None:
    """Read what a saved query has found so far; None before its first time.

    Raises:
        StoreError: The file is damaged.
        UnreadableError: The file cannot be read.
    """
    try:
        with reading(file):
            return FoundSoFar.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise StoreError(f"{file}: damaged: remove it, and the query begins anew") from None


def _notify(saved: SavedQuery, new: Answer) -> None:
    """Run the command of a saved query, with the new hits as JSON on its standard input."""
    told = json.dumps({"name": saved.name, **answer_json(new)})
    try:
        tell_command(saved.notify, told, NOTIFY_SECONDS)
    except CommandError as error:
        raise QueryError(f'saved query "{saved.name}": {error}') from None
