"""Yes/no votes on content ids, a table for each recommender: read, append, take back.

A table is the log of the votes in their order. Of several votes on one image the last counts, and
taking it back restores the one before.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StrictBool, TypeAdapter, ValidationError

from retrieval_pipeline.errors import RecommendError
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.names import SOURCE_NAME
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import JUDGEMENTS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table, write_table


@dataclass(frozen=True)
class Judgement:
    """One vote."""

    content_id: str
    liked: bool
    judged_at: datetime


def recommender_names(store: Store) -> list[str]:
    """Return the names of the recommenders that have a table of judgements."""
    return [path.stem for path in store.all_judgements()]


def check_name(name: str) -> None:
    """Refuse a name that cannot be a file's name everywhere.

    Raises:
        RecommendError: Says what is allowed.
    """
    if not SOURCE_NAME.fullmatch(name):
        raise RecommendError(
            f"{name!r} cannot name a recommender: 1 to 64 letters, digits, - and _, "
            "starting with a letter or digit"
        )


def require_recommender(store: Store, name: str) -> None:
    """Refuse the name of a recommender that nobody ever voted in.

    Raises:
        RecommendError: The message lists those that exist.
    """
    check_name(name)
    if not store.judgements(name).exists():
        known = ", ".join(recommender_names(store)) or "none yet"
        raise RecommendError(
            f'there is no recommender "{name}" (recommenders: {known}): '
            f"start it with `retrieval recommend --name {name}`"
        )


def read_judgements(store: Store, name: str) -> list[Judgement]:
    """Return all votes in their order; none if nobody has voted yet.

    Raises:
        RecommendError: The name is not allowed.
        StoreError: The table is damaged; it is left as it is.
    """
    check_name(name)
    path = store.judgements(name)
    if not is_there(path):
        return []
    table = read_table(
        path, JUDGEMENTS, remedy="it is kept; put a copy of it back, or move it away to start anew"
    )
    return [Judgement(**row) for row in table.to_pylist()]


def add_judgements(store: Store, name: str, votes: Sequence[tuple[str, bool]]) -> list[Judgement]:
    """Append votes, (content id, liked) each, durably; return all votes of the recommender.

    Raises:
        RecommendError: The name is not allowed.
        StoreError: The table is damaged or cannot be written; it is left as it is.
    """
    now = datetime.now(UTC)
    added = [Judgement(content_id, liked, now) for content_id, liked in votes]
    check_name(name)
    with store.writing_user_data():
        judgements = read_judgements(store, name) + added
        _write(store, name, judgements)
    return judgements


def undo_judgement(store: Store, name: str) -> tuple[Judgement | None, list[Judgement]]:
    """Take the last vote back; return it (None without any) and the votes that remain.

    Raises:
        RecommendError: The name is not allowed.
        StoreError: The table is damaged or cannot be written; it is left as it is.
    """
    check_name(name)
    with store.writing_user_data():
        judgements = read_judgements(store, name)
        if not judgements:
            return None, []
        _write(store, name, judgements[:-1])
    return judgements[-1], judgements[:-1]


def retract_judgements(store: Store, name: str, content_ids: Collection[str]) -> list[Judgement]:
    """Take back every vote on these pictures; return the votes that remain.

    Raises:
        RecommendError: The name is not allowed.
        StoreError: The table is damaged or cannot be written; it is left as it is.
    """
    check_name(name)
    with store.writing_user_data():
        judgements = read_judgements(store, name)
        retracted = frozenset(content_ids)
        left = [judgement for judgement in judgements if judgement.content_id not in retracted]
        if len(left) < len(judgements):
            _write(store, name, left)
    return left


def votes_that_count(judgements: Sequence[Judgement]) -> dict[str, bool]:
    """Return the last vote on each content id, in the order in which the ids were last voted on."""
    votes: dict[str, bool] = {}
    for judgement in judgements:
        votes.pop(judgement.content_id, None)
        votes[judgement.content_id] = judgement.liked
    return votes


def _write(store: Store, name: str, judgements: Sequence[Judgement]) -> None:
    rows = [asdict(judgement) for judgement in judgements]
    write_table(store.judgements(name), pa.Table.from_pylist(rows, schema=JUDGEMENTS))


# What is wrong with an entry, by pydantic's type of the error.
_WRONG = {
    "model_type": 'must be like {"path": "cat.jpg", "liked": true}',
    "missing": "missing",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "string_pattern_mismatch": "must be 32 hex digits",
    "extra_forbidden": "unknown key (allowed: content_id or path, liked)",
}


class _FileVote(BaseModel):
    """One entry of a file of votes."""

    model_config = ConfigDict(extra="forbid")

    content_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    path: str | None = None
    liked: StrictBool

    def content(self, stored: Mapping[str, set[str]]) -> str:
        """Return the content id; that of a file is computed from its bytes.

        Args:
            stored: The content ids of paths in sources.

        Raises:
            ValueError: The entry names no image, or one that cannot be read.
        """
        if self.content_id is not None and self.path is None:
            return self.content_id
        if self.path is None or self.content_id is not None:
            raise ValueError('give "content_id" or "path", one of them')
        try:
            if Path(self.path).is_file():
                return content_id_of_file(self.path)
        except OSError as error:
            raise ValueError(f"{self.path}: {error.strerror}") from None
        contents = stored.get(self.path, set())
        if len(contents) > 1:
            raise ValueError(f"{self.path}: is in several sources: write the whole path")
        if not contents:
            raise ValueError(f"{self.path}: there is no such file, and no such path in a source")
        return next(iter(contents))


def read_votes_file(
    file: Path, stored_files: Callable[[Sequence[str]], Mapping[str, set[str]]]
) -> list[tuple[str, bool]]:
    """Return the votes, (content id, liked) each, of a JSON file.

    The file is a list of {"content_id" or "path": ..., "liked": true or false}; paths are relative
    to the working directory, or to a source.

    Args:
        file: The file.
        stored_files: Returns the content ids of paths in sources.

    Raises:
        RecommendError: One line for each entry that is wrong; then none of them counts.
    """
    try:
        entries = TypeAdapter(list[object]).validate_json(file.read_bytes())
    except OSError as error:
        raise RecommendError(f"{file}: {error.strerror}") from None
    except ValidationError as error:
        raise RecommendError(f"{file}: not a JSON list ({error.errors()[0]['msg']})") from None
    paths = [each.get("path") for each in entries if isinstance(each, dict)]
    gone = [path for path in paths if isinstance(path, str) and not os.path.isfile(path)]  # noqa: PTH113
    stored = stored_files(gone) if gone else {}
    votes: list[tuple[str, bool]] = []
    problems: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            vote = _FileVote.model_validate(entry)
            votes.append((vote.content(stored), vote.liked))
        except ValidationError as error:
            problems += [
                ": ".join(
                    [
                        f"{file}: entry {number}",
                        *map(str, each["loc"]),
                        _WRONG.get(each["type"], each["msg"]),
                    ]
                )
                for each in error.errors()
            ]
        except ValueError as error:
            problems.append(f"{file}: entry {number}: {error}")
    if problems:
        raise RecommendError(*problems)
    return votes
