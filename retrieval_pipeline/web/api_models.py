"""What operations of the JSON API take and return."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from retrieval_pipeline.maintenance.status import LibraryStatus
from retrieval_pipeline.web.parameters import MOST_SELECTED, ContentId, Page, Search
from retrieval_pipeline.web.pictures import FileLocation
from retrieval_pipeline.web.thumbnails import Size


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OnePicture(_Model):
    """A picture."""

    content_id: ContentId = Field(description="Identity of the picture's bytes.")


class Thumbnail(OnePicture):
    """A picture, small or large."""

    size: Size = Field(default="small", description="480, 1600 or 4096 pixels at most.")


class ShapesOf(Search):
    """A search, and after how many of what it finds."""

    offset: int = Field(default=0, ge=0, le=100_000_000, description="Leave out the first.")


class IdsOf(Search):
    """A search, and which part of what it finds."""

    k: int = Field(default=1_000, ge=1, le=MOST_SELECTED, description="How many.")
    offset: int = Field(default=0, ge=0, le=100_000_000, description="Leave out the first.")


class Ids(BaseModel):
    """The content ids of what a search finds, in its order."""

    content_ids: list[str]


class Month(BaseModel):
    """A month, such as "2019-08", empty for unknown dates, and how many pictures are of it."""

    month: str
    count: int


class Shapes(BaseModel):
    """The shapes of what a search finds, in its order, so that a grid can make room for it.

    Attributes:
        shapes: Width over height of the cards in hundredths, base64 of little-endian uint16.
        more: Whether there may be further ones after these.
        likely: How many of these, the first ones, are likely; None where that does not apply.
        months: When they were taken, if that is their order.
    """

    shapes: str
    more: bool
    likely: int | None
    months: list[Month]


class Current(BaseModel):
    """The index that answers now.

    Attributes:
        build: Its name.
        images: Pictures in it.
    """

    build: str
    images: int


class Published(Current):
    """An index that has taken over from another one.

    Attributes:
        new: Pictures that the other one had not; None if nobody can say.
    """

    new: int | None


class SimilarTo(OnePicture, Page):
    """Pictures like one."""


class Upload(BaseModel):
    """A picture that was received: search for `like` it if it is indexed, else for `upload`."""

    content_id: str
    indexed: bool


class Token(BaseModel):
    """What a request that changes something carries in the header X-Retrieval-Token."""

    token: str


class Recommenders(BaseModel):
    """The recommenders that somebody voted in."""

    names: list[str]


class Failure(BaseModel):
    """One file that could not be used.

    Attributes:
        source: Name of its source.
        path: Relative to the source.
        reason: Its kind.
        detail: In words.
        attempts: How often it was tried.
        last_tried: When; None for a file that could not even be read.
    """

    source: str
    path: str
    reason: str
    detail: str
    attempts: int
    last_tried: datetime | None


class Failures(BaseModel):
    """Files that could not be used, and how many for each reason."""

    total: int
    reasons: dict[str, int]
    failures: list[Failure]


class FailuresOf(Page):
    """Which of them."""

    source: str | None = Field(default=None, description="Only files of this source.")
    reason: str | None = Field(default=None, description="Only files with this reason.")


class Twin(BaseModel):
    """A picture of a group; `cosine` is that with the group's first."""

    content_id: str
    cosine: float
    width: int
    height: int
    locations: list[FileLocation]

    @property
    def name(self) -> str:
        """Name of its first file."""
        return self.locations[0].path.rpartition("/")[2]


class Duplicates(BaseModel):
    """Pictures that are there more than once; without groups while they are compared."""

    ready: bool
    total: int
    groups: list[list[Twin]]


class Run(BaseModel):
    """One run that published an index.

    Attributes:
        build: Name of the index.
        created_at: When it was published.
        items: Pictures in it.
        files: Files that hold them.
        seconds: How long the index took to write, without reading and embedding the pictures.
        model: Whose vectors it holds.
        recall_at_10: Share of the true ten nearest pictures that a query finds.
        current: Whether new queries are answered from it.
    """

    build: str
    created_at: datetime
    items: int
    files: int
    seconds: float
    model: str
    recall_at_10: float
    current: bool


class ServerStatus(LibraryStatus):
    """What is indexed, by which model, how fresh, and what failed.

    Attributes:
        serving: Name of the index that answers now; None before there is one.
        running: Whether a run is bringing the tables or the index up to date now.
        runs: The last runs that published an index, newest first.
    """

    running: bool
    serving: str | None
    runs: list[Run]


class Coloured(BaseModel):
    """A cluster, a source or another group of the map."""

    name: str
    colour: str
    images: int


class FactColours(BaseModel):
    """The map by a fact: `codes` is base64 of uint16, numbers of `groups`."""

    codes: str
    groups: list[Coloured]


class MapData(BaseModel):
    """The map; arrays are base64 of little-endian numbers, an entry a picture.

    Attributes:
        build: Name of the index.
        axes: What x and y show.
        ids: 16 bytes each, the content ids.
        x: float32.
        y: float32.
        neighbours: x and y of the layout by UMAP; None without one.
        cluster: uint16, numbers of `clusters`.
        clusters: The clusters.
        source: uint16, numbers of `sources`.
        sources: The sources.
        facts: By "year", "camera" and "country", as far as any picture knows it.
        score: float32, nearness to the query; None without one.
        order: uint32, entries so that any beginning of them covers the map evenly.
        images: Number of pictures in the index, of which these are a sample if they are fewer.
    """

    build: str
    axes: tuple[str, str]
    ids: str
    x: str
    y: str
    neighbours: tuple[str, str] | None
    cluster: str
    clusters: list[Coloured]
    source: str
    sources: list[Coloured]
    facts: dict[str, FactColours]
    score: str | None
    order: str
    images: int
