"""A server of the Model Context Protocol: assistants search, look at pictures, and read facts.

Everything is read-only. Pictures are named by content id, so that nothing outside of the index can
be asked for, and a file is shown only if it still holds the bytes of that id.
"""

import contextlib
import hmac
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval_pipeline import __version__
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.errors import QueryError, RetrievalError
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import encoded, picture
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.maintenance.status import read_status
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.results import FoundItem, answer_json, hit_json, read_hits
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.search.vector_index import indexed_item

# An answer and a picture must leave room for the rest of a conversation.
MOST_HITS = 50
LONGEST_TEXT = 1_000
LARGEST_THUMBNAIL = 1_024

INSTRUCTIONS = """\
Searches a person's own pictures by what is in them. `search` takes plain words and filters; hits
are named by `content_id`, which `similar`, `facts` and `thumbnail` take. `relevance` (0 to 1) says
how sure it is that a picture has to do with the query: below 0.5 a hit is more probably wrong than
right. Look at a thumbnail before you say what a picture shows."""

_READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)

Count = Annotated[int, Field(ge=1, le=MOST_HITS, description="How many hits.")]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
ContentId = Annotated[
    str, Field(pattern="^[0-9a-f]{32}$", description="Of a picture that a search has found.")
]


class _Library:
    """The current index; it is opened anew when there is a newer one."""

    def __init__(self, load: Callable[[], Settings]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._searcher: Searcher | None = None

    @property
    def settings(self) -> Settings:
        return self._load()

    @property
    def searcher(self) -> Searcher:
        settings = self._load()
        with self._lock:
            if self._searcher is None:
                self._searcher = Searcher.open(settings)
            elif not self._searcher.index.is_current(settings):
                self._searcher = self._searcher.reopened(settings)
            return self._searcher


def create_server(load: Callable[[], Settings]) -> MCPServer[Any]:
    """Return the server; `load` reads the settings, at each request."""
    library = _Library(load)
    server: MCPServer[Any] = MCPServer(
        "retrieval",
        title="Pictures",
        instructions=INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
    )

    @server.tool(annotations=_READ_ONLY)
    def search(
        text: Text,
        count: Count = 8,
        source: Text = "",
        path: Annotated[Text, Field(description='A glob, such as "2024/*".')] = "",
        taken: Annotated[Text, Field(description='"2019", "summer 2019", "last week".')] = "",
        near: Annotated[Text, Field(description="A town.")] = "",
        camera: Text = "",
        album: Text = "",
        label: Text = "",
        min_relevance: Annotated[float, Field(ge=0, le=1)] = 0.0,
    ) -> dict[str, Any]:
        """Find pictures that show what the words say; filters that are empty are not applied."""
        filters = {"source": source, "path": path, "camera": camera, "album": album, "label": label}
        with _told():
            query = Query.of(
                {
                    "text": text,
                    "on": taken,
                    "near": near,
                    "min_relevance": min_relevance,
                    **{name: [value] for name, value in filters.items() if value},
                }
            )
            return _answer(library.searcher, query, count)

    @server.tool(annotations=_READ_ONLY)
    def similar(content_id: ContentId, count: Count = 8, text: Text = "") -> dict[str, Any]:
        """Find pictures like one that was found, and that show what the words say, if any."""
        with _told():
            return _answer(library.searcher, Query(text=text or None, like=(content_id,)), count)

    @server.tool(annotations=_READ_ONLY)
    def facts(content_id: ContentId) -> dict[str, Any]:
        """Tell where a picture's files are, and when, where and with what it was taken."""
        with _told():
            searcher = library.searcher
            found = FoundItem(indexed_item(searcher.index, content_id).item())
            return hit_json(read_hits(searcher.index, Query(), [found], searcher.path_of)[0])

    @server.tool(annotations=_READ_ONLY)
    def thumbnail(
        content_id: ContentId,
        size: Annotated[
            int, Field(ge=32, le=LARGEST_THUMBNAIL, description="Largest edge, in pixels.")
        ] = 512,
    ) -> Image:
        """Show a picture, made small."""
        with _told():
            searcher = library.searcher
            record = searcher.index.records(indexed_item(searcher.index, content_id))[0]
            limits, problem = Limits.of(searcher.settings.images), ""
            for location in record.locations:
                job = Job(searcher.path_of(location), content_id)
                try:
                    pixels = picture(job, Fit(size), limits).pixels
                except ImageError as error:
                    problem = f"{location.path}: {error}"
                else:
                    return Image(data=encoded(pixels, "JPEG"), format="jpeg")
            raise QueryError(problem)

    @server.tool(annotations=_READ_ONLY)
    def status() -> dict[str, Any]:
        """Tell what is indexed, by which model, and when it was last looked at."""
        with _told():
            settings = library.settings
            found = read_status(settings, describe_encoder(settings).space)
            return found.model_dump(mode="json")

    return server


def with_token(app: ASGIApp, token: str) -> ASGIApp:
    """Return an ASGI application that answers only those who know the token.

    They send it as `Authorization: Bearer <token>` (RFC 6750).
    """
    expected = f"Bearer {token}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, expected):
                refusal = PlainTextResponse(
                    "the token is missing or wrong", 401, {"WWW-Authenticate": "Bearer"}
                )
                await refusal(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded


def _answer(searcher: Searcher, query: Query, count: int) -> dict[str, Any]:
    answer = searcher.answer(query, count)
    return {"verdict": answer.verdict, **answer_json(answer)}


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn an error of this program into one whose text the assistant reads."""
    try:
        yield
    except RetrievalError as error:
        raise ToolError(str(error)) from None
