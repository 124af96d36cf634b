"""The pictures of an index as clients are told of them: by item, as a hit, or by content id."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.index.item_facts import ItemFacts
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.records import IndexedFile, ItemRecord
from retrieval_pipeline.paths import printable, to_text
from retrieval_pipeline.search.filters import file_test
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.results import Hit, rounded
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.search.vector_index import Items
from retrieval_pipeline.web.files import GoneError, file_of
from retrieval_pipeline.web.pictures import (
    Companion,
    Details,
    Facts,
    File,
    FileLocation,
    Picture,
)
from retrieval_pipeline.web.problems import RequestError

# The formats that every browser shows, upright and in their own colours.
MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}


class IndexedPictures:
    """Tells of the pictures of an index."""

    def __init__(self, searcher: Searcher, cluster_of: Callable[[str], str | None]) -> None:
        """Tell of the pictures of a searcher's index.

        Args:
            searcher: Has the index.
            cluster_of: Returns the name of a picture's cluster, if there is a map, by content id.
        """
        self.index = searcher.index
        self._searcher = searcher
        self._cluster_of = cluster_of

    @property
    def settings(self) -> Settings:
        """The settings under which the index was opened."""
        return self._searcher.settings

    def of(
        self, items: Items, passes: Callable[[IndexedFile], bool] | None = None
    ) -> list[Picture]:
        """Return what is told of these items; the first file that `passes` is the one shown."""
        told = zip(self.index.records(items), self.index.item_facts(items), strict=True)
        return [
            self._picture(record, facts, record.first(passes) if passes else record.locations[0])
            for record, facts in told
        ]

    def of_hit(self, hit: Hit) -> Picture:
        """Return what is told of a hit."""
        return self._picture(
            hit,
            hit.facts,
            hit.location,
            score=rounded(hit.score),
            relevance=rounded(hit.relevance),
            likely=hit.likely,
            alike=hit.alike,
            region=hit.region,
        )

    def _picture(
        self, item: ItemRecord | Hit, facts: ItemFacts, shown: Location, **judged: Any
    ) -> Picture:
        return Picture(
            content_id=item.content_id,
            source=shown.source,
            path=shown.path,
            width=item.width,
            height=item.height,
            cluster=self._cluster_of(item.content_id),
            locations=[FileLocation.of(location) for location in item.locations],
            facts=Facts.of(facts),
            companions=[Companion.of_file(each) for each in item.companions],
            **judged,
        )

    def details(self, content_id: str, query: Query = Query()) -> Details:  # noqa: B008
        """Return everything about a picture; it looks at the picture's files.

        Files that pass the filters of the query come first: they are the ones that it found.

        Raises:
            RequestError: There is no such picture; 404.
        """
        passes = file_test(query, knows_facts=self.index.knows_facts)
        items = self.item(content_id)
        item = self.index.records(items)[0]
        return Details(
            content_id=content_id,
            width=item.width,
            height=item.height,
            format=item.format,
            cluster=self._cluster_of(content_id),
            model=self.index.info.model,
            build=self.index.name,
            files=[
                self._file(file) for file in sorted(item.files, key=lambda file: not passes(file))
            ],
            facts=Facts.of(self.index.item_facts(items)[0]),
            companions=[Companion.of_file(each) for each in item.companions],
        )

    def _file(self, file: IndexedFile) -> File:
        location = file.location
        try:
            file_of(self.settings, location)
            problem = None
        except GoneError as error:
            problem = str(error)
        return File(
            source=location.source,
            path=location.path,
            absolute=self.absolute(location),
            size=file.size,
            modified=datetime.fromtimestamp(file.mtime_ns / 1e9, UTC),
            problem=problem,
        )

    def absolute(self, location: Location) -> str:
        """Return the whole path of a file, on one line."""
        return printable(to_text(str(self._searcher.path_of(location))))

    def records(self, content_ids: Sequence[str]) -> list[ItemRecord]:
        """Return the items with these content ids; those that are not in the index are left out."""
        records = self.index.records(self.index.find(content_ids))
        of_id = {record.content_id: record for record in records}
        return [of_id[content_id] for content_id in content_ids if content_id in of_id]

    def media_type(self, content_id: str) -> str | None:
        """Return the media type of a picture's files; None if browsers do not show it.

        Raises:
            RequestError: There is no such picture; 404.
        """
        item = self.index.records(self.item(content_id))[0]
        return MEDIA_TYPES.get(item.format)

    def locations(self, content_id: str) -> list[Location]:
        """Return every file that holds a picture.

        Raises:
            RequestError: There is no such picture; 404.
        """
        return list(self.index.records(self.item(content_id))[0].locations)

    def item(self, content_id: str) -> Items:
        """Return an indexed picture, as an array of one item.

        Raises:
            RequestError: There is no such picture; 404.
        """
        found = self.index.find([content_id])
        if not len(found):
            raise not_indexed(content_id)
        return found

    def has(self, content_id: str) -> bool:
        """Tell whether a picture is in the index."""
        return len(self.index.find([content_id])) > 0


def not_indexed(content_id: str) -> RequestError:
    """Return what is said of a picture that is not in the index."""
    return RequestError(
        HTTPStatus.NOT_FOUND,
        "This picture is not in the index, maybe not any more: its file was changed, moved out of "
        f"the sources or deleted since. (Its content id is {content_id}.)",
        title="The picture is not here",
    )
