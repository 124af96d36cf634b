"""What a search asks of an index, whichever engine keeps it.

Two makers answer: `embedded_index` from the files of a build, and `milvus` from a Milvus server.
`Searcher.open` opens the one that the settings name; nobody else needs to know which it is.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts.query_words import Vocabulary
from retrieval_pipeline.index.corpus import Corpus, IndexInfo
from retrieval_pipeline.index.item_facts import ItemFacts
from retrieval_pipeline.index.records import ItemRecord
from retrieval_pipeline.search.facets import Facets
from retrieval_pipeline.search.query import Query, Sort
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.vectors import Flags, Numbers, Vectors
from retrieval_pipeline.views import View

# Items as their index tells them apart, (n,): numbers (int64) of the items of a build, or objects.
# A single one, from `tolist()`, can be a key. Only the index that gave an item knows what it means.
Items = npt.NDArray[Any]

# Which items pass some filters, as their index keeps it.
Selection = Any

# The time of an item whose date is unknown: it sorts after every date.
UNKNOWN_TIME = int(np.iinfo(np.int64).max)


def as_items(items: Sequence[Any]) -> Items:
    """Return single items as an array: of int64 if they are numbers, else of objects."""
    if not items or isinstance(items[0], int):
        return np.array(items, np.int64)
    found = np.empty(len(items), np.object_)
    found[:] = items
    return found


class Names(Protocol):
    """File and folder names of an index, as `file_names.FileNames` finds them in a build."""

    def named(self, name: str) -> list[str]:
        """Return the names that are this one, with or without its ending, as they are spelt."""

    def like(self, text: str, count: int) -> list[str]:
        """Return names that begin with a text, then such that hold it, `count` at most."""

    def folders(self, folder: str) -> list[str]:
        """Return the folders, in a row, that are called so, each spelling once."""

    def folders_like(self, text: str, count: int) -> list[str]:
        """Return folders, from the source on, whose last name begins with a text."""


@dataclass(frozen=True)
class Ranking:
    """Items best first.

    Attributes:
        items: (n,).
        scores: float32 (n,), descending.
        plan: How they were found.
        among: Number of items that were ranked, of which these are the best.
        rows: (n,), of each item its row that is nearest to what is wanted: as the index tells rows
            apart, whose `vectors` and `view_of` take it.
        among_rows: Number of rows that were compared: more than `among` if items have views.
    """

    items: Items
    scores: Vectors
    plan: str
    among: int
    rows: Items
    among_rows: int

    @property
    def is_partial(self) -> bool:
        """Whether there are items below the last one."""
        return len(self.items) < self.among


class VectorIndex(Protocol):
    """The items of one state of the index, with their vectors and what is told of them.

    Items have an order: that of the source and path of their first file. Every method that asks a
    server raises EngineError if the server cannot answer.
    """

    @property
    def name(self) -> str:
        """Of the build that it answers from."""

    @property
    def info(self) -> IndexInfo:
        """What it was made of."""

    def __len__(self) -> int:
        """Return the number of items."""

    def is_current(self, settings: Settings) -> bool:
        """Tell whether this is still the state that is to be answered from.

        Raises:
            StoreError: The pointer to the current build is damaged.
        """

    def check_unchanged(self) -> None:
        """Check that all that was read so far is of this one state, and not of a later one.

        Raises:
            EngineError: An engine has overwritten it.
        """

    def warm_up(self) -> None:
        """Load what many queries need.

        Raises:
            BuildError: Files of the build cannot be read.
        """

    def corpus(self, settings: Settings) -> Corpus | None:
        """Return all of its items, by number; None if this machine does not have them.

        The embedded index has them, and for an engine the home that published them.

        Raises:
            BuildError: What is told of the items is damaged.
            StoreError: The ledger of the publication is damaged.
        """

    # What queries are understood and judged by

    @property
    def vocabulary(self) -> Vectors | None:
        """The vectors of `index.vocabulary.words()`, float32 (n, dim); None if there are none."""

    @property
    def sample(self) -> Vectors:
        """Vectors of items whose scores stand for the scores of all, float32 (n, dim)."""

    def sample_passing(self, selection: Selection) -> Flags:
        """Return which items of the sample are in a selection, bool (n,)."""

    def sample_items(self, selection: Selection | None) -> Items:
        """Return the items of the sample that are in a selection."""

    @property
    def knows_facts(self) -> bool:
        """Whether facts were read when it was made; else the times of files stand for dates."""

    @property
    def fact_words(self) -> Vocabulary:
        """The cameras, places and years that words of a query may mean."""

    def notes(self, query: Query) -> tuple[str, ...]:
        """Say what should be known of an answer whose query filters by facts."""

    @property
    def file_names(self) -> Names:
        """The names of files and folders, for what people type of them."""

    # Which items

    def passing(self, query: Query) -> Selection | None:
        """Return which items pass the filters of a query but albums and labels; None for all.

        An item passes if one of its files does: a copy elsewhere neither helps nor hurts it.
        Companions count as files: whoever looks for *.nef finds the JPEG that is shown for it.

        Raises:
            QueryError: A filter names a source that is not in the index, a place that does not
                exist, or a fact that the index does not know.
        """

    def having(self, content_ids: Collection[str]) -> Selection:
        """Return which items have one of these content ids."""

    def lacking(self, content_ids: Collection[str]) -> Selection:
        """Return which items have none of these content ids."""

    def both(self, one: Selection | None, other: Selection | None) -> Selection | None:
        """Return which items are in both selections; None stands for all items."""

    def count(self, selection: Selection | None) -> int:
        """Return how many items are in a selection; None stands for all items."""

    def facets(self, selection: Selection | None, folder: str = "") -> Facets:
        """Count the items of a selection by source, folder, year, place, camera and format.

        Args:
            selection: Which items; None for all.
            folder: Relative to its source, without a slash at its end; "" for the sources' own.

        Returns:
            Also notes of what the index did not count.
        """

    def added_since(self, settings: Settings, build: str) -> Selection | None:
        """Return which items another state of the index had not; do not change the selection.

        Args:
            settings: Where former builds are kept.
            build: The name of the other state.

        Returns:
            None if it is not known what that state had: its build is gone, or has another name.

        Raises:
            BuildError: The other build is damaged.
        """

    def find(self, content_ids: Collection[str]) -> Items:
        """Return the items with these content ids, in the order of the index; unknown: left out."""

    # In which order

    def rank(
        self,
        queries: Sequence[Query],
        query_vectors: Sequence[QueryVectors],
        selections: Sequence[Selection | None],
        count: int,
    ) -> list[Ranking]:
        """Return the `count` best items of each query; fewer if there are fewer.

        An item is as near to a vector as the nearest of its rows: a picture shows what one of its
        views shows, wanted or not. A picture is no answer to itself: those of `like` are left out.
        Of equal scores, the item that comes first in the order of the index does.
        """

    def nearest(self, vector: Vectors, count: int, selection: Selection | None) -> Items:
        """Return the `count` items of a selection nearest to a unit vector, (dim,), best first."""

    def listing(
        self, selection: Selection | None, sort: Sort, offset: int = 0, count: int | None = None
    ) -> Items:
        """Return `count` items of a selection by date or name, after the first `offset`.

        Args:
            selection: Which items; None for all.
            sort: "newest", "oldest" or "name", as `in_order` says.
            offset: Leave out so many of the first.
            count: How many; None for as many as the index lists in one go.

        Raises:
            QueryError: The index cannot sort so many.
        """

    def in_order(self, items: Items, sort: Sort) -> Numbers:
        """Return the order of these items, int64 (n,): positions in `items`.

        By name it is that of the first file's name, without regard to case. Items without a date
        come last, both ways; of equal ones the first in the order of the index comes first.
        "relevance", which is unknown here, leaves them as they are.
        """

    # What is told of items

    def times(self, items: Items) -> Numbers:
        """Return when items were taken, int64 (n,): microseconds since 1970, or UNKNOWN_TIME."""

    def sizes(self, items: Items) -> tuple[Numbers, Numbers]:
        """Return width and height of the upright pictures, in pixels, (n,) each."""

    def vectors(self, rows: Items) -> Vectors:
        """Return the vectors of items, or of `Ranking.rows`: float32 (n, dim)."""

    def records(self, items: Items) -> list[ItemRecord]:
        """Return what is told of items, in this order."""

    def item_facts(self, items: Items) -> list[ItemFacts]:
        """Return when, where and with what items were taken, in this order."""

    def view_of(self, row: Any) -> View | None:
        """Return the view that one of `Ranking.rows` is the vector of; None for an item's own."""


def indexed_item(index: VectorIndex, content_id: str) -> Items:
    """Return the item of a picture that a query names, as an array of one.

    Raises:
        QueryError: The index has none such.
    """
    found = index.find([content_id])
    if not len(found):
        raise not_indexed(content_id)
    return found


def not_indexed(content_id: str) -> QueryError:
    """Return what is said of a query that names a picture which the index does not have."""
    return QueryError(
        f'no indexed picture has the content id "{content_id}": '
        "`retrieval query --json` shows those of the hits"
    )


def unknown_source(source: str, known: Iterable[str]) -> QueryError:
    """Return what is said of a filter by a source that is not in the index."""
    return QueryError(f'there is no source "{source}" in the index (sources: {", ".join(known)})')
