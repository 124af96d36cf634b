"""Labels: a person's own words, scored on all pictures, as a table to filter and count by.

The table `labels/labels.parquet` has a row for each picture and word whose relevance
(`search.relevance`) is high enough. It holds content ids, so that it still serves while a newer
build waits for its labels. `search/labelling.py` makes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from retrieval_pipeline.config.settings import LabelSettings
from retrieval_pipeline.errors import QueryError, StoreError
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import LABELS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.storage.tables import read_metadata, read_table
from retrieval_pipeline.vectors import VectorSpace

REMEDY = "remove it, and run `retrieval label` again"


class LabelsInfo(StoredModel):
    """What a table of labels was made of.

    Attributes:
        asked: The words, and how they were asked.
        build: Name of the build whose pictures were scored.
        space: Key of its vector space.
    """

    asked: LabelSettings
    build: str
    space: str


def labels_version(store: Store) -> tuple[int, ...]:
    """Return what is another value once the table of labels has changed; () without a table."""
    try:
        stat = store.labels.stat()
    except FileNotFoundError:
        return ()
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def label_notes(build: str, store: Store) -> tuple[str, ...]:
    """Say so if the labels are not those of the build of this name."""
    info = read_labels_info(store)
    if info is None or info.build == build:
        return ()
    return ("the labels are of an earlier index: `retrieval label` brings them up to date",)


@dataclass(frozen=True)
class Labels:
    """A table of labels.

    Attributes:
        info: What it was made of.
        table: Columns of `schemas.LABELS`, by word in the order asked, the best picture first.
    """

    info: LabelsInfo
    table: pa.Table

    @property
    def counts(self) -> dict[str, int]:
        """Number of pictures of each word, in the order in which the words were asked."""
        return self.counts_among(None)

    def counts_among(self, content_ids: pa.Array | None) -> dict[str, int]:
        """Return the number of these pictures, or of all, that have each label: a facet.

        Args:
            content_ids: String (n,); None for all pictures.
        """
        words = self.table["word"]
        if content_ids is not None:
            words = words.filter(pc.is_in(self.table["content_id"], value_set=content_ids))
        counted = {row["values"]: row["counts"] for row in words.value_counts().to_pylist()}
        return {word: counted.get(word, 0) for word in self.info.asked.words}


def read_labels(store: Store) -> Labels | None:
    """Return the table of labels; None if nothing was labelled yet.

    Raises:
        StoreError: It is damaged.
    """
    info = read_labels_info(store)
    if info is None:
        return None
    return Labels(info, read_table(store.labels, LABELS, remedy=REMEDY))


def read_labels_info(store: Store) -> LabelsInfo | None:
    """Return what the table of labels was made of; as `read_labels`, but the table is not read."""
    if not is_there(store.labels):
        return None
    try:
        return LabelsInfo.model_validate_json(read_metadata(store.labels)[b"labels"])
    except (KeyError, ValidationError):
        raise StoreError(f"{store.labels}: does not say what it was made of: {REMEDY}") from None


def label_ids(space: VectorSpace, store: Store, words: Sequence[str]) -> list[str]:
    """Return the content ids of the pictures that have one of these labels.

    Args:
        space: That of the index; labels of another model do not count.
        store: Where the table is.
        words: The labels.

    Raises:
        QueryError: There are no such labels, or they are of another model.
        StoreError: The table is damaged.
    """
    labels = read_labels(store)
    known = {} if labels is None else {word.casefold(): word for word in labels.info.asked.words}
    for word in words:
        if word.casefold() not in known:
            names = ", ".join(known.values()) or "none yet"
            raise QueryError(
                f'there is no label "{word}" (labels: {names}): `retrieval label WORDS` or '
                "[labels] in the settings make them"
            )
    assert labels is not None
    if labels.info.space != space.key:
        raise QueryError("the labels are of another model: `retrieval label` makes them again")
    wanted = pa.array([known[word.casefold()] for word in words], pa.string())
    ids = labels.table["content_id"].filter(pc.is_in(labels.table["word"], value_set=wanted))
    found: list[str] = pc.unique(ids).to_pylist()
    return found
