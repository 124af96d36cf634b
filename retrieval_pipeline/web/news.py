"""What an open page hears of without asking: how far a run is, and a new index.

Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them.
"""

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.web.api import library_of
from retrieval_pipeline.web.api_models import Published
from retrieval_pipeline.web.indexing import RunState
from retrieval_pipeline.web.library import Library
from retrieval_pipeline.web.operations import Nothing
from retrieval_pipeline.web.parameters import BuildName, parse
from retrieval_pipeline.web.snapshot import Snapshot

# Seconds between two looks.
LOOK_SECONDS = 0.5
# Seconds without news after which a stream says that it is alive.
ALIVE_SECONDS = 15.0
# Seconds after which a stream ends, and the browser opens it anew: less than any answer may take.
STREAM_SECONDS = 300.0


class Listener(BaseModel, extra="forbid", frozen=True):
    """A page that listens.

    Attributes:
        build: Name of the index that it shows; "" if it shows none.
    """

    build: BuildName | None = None


async def run(request: Request, _: Nothing) -> RunState:
    """Tell what the run does that brings tables or index up to date, whoever started it."""
    library = library_of(request)
    return await library.run(library.indexing.state)


async def start_run(request: Request, _: Nothing) -> RunState:
    """Bring tables and index up to date with the directories, as `retrieval index` does."""
    library = library_of(request)
    await library.run(library.indexing.start)
    return await library.run(library.indexing.state)


async def stop_run(request: Request, _: Nothing) -> RunState:
    """End the run that was started here; the next one goes on where it stopped."""
    library = library_of(request)
    await library.run(library.indexing.stop)
    return await library.run(library.indexing.state)


async def events(request: Request) -> Response:
    """Send an event for each change of the run, "run", and for each new index, "index"."""
    listener = parse(Listener, request.query_params.multi_items(), {})
    library = library_of(request)

    async def stream() -> AsyncIterator[str]:
        clock = asyncio.get_running_loop().time
        end, spoken = clock() + STREAM_SECONDS, clock()
        shown, told = listener.build, RunState()
        yield "retry: 1000\n\n"
        while clock() < end and not request.app.state.is_stopping():
            state = await library.run(library.indexing.state)
            if state != told:
                told, spoken = state, clock()
                yield _event("run", state)
            if library.is_open and library.snapshot.name != shown:
                published = await _published(library, shown)
                shown, spoken = published.build, clock()
                yield _event("index", published)
            if clock() - spoken >= ALIVE_SECONDS:
                spoken = clock()
                yield ": still here\n\n"
            await asyncio.sleep(LOOK_SECONDS)

    return StreamingResponse(stream(), media_type="text/event-stream")


async def _published(library: Library, shown: str | None) -> Published:
    snapshot = library.snapshot
    return Published(
        build=snapshot.name,
        images=len(snapshot.index),
        new=None if shown is None else await library.run(_new, snapshot, shown),
    )


def _new(snapshot: Snapshot, shown: str) -> int | None:
    """Count the pictures that another index had not; None if that is not known any more."""
    try:
        added = snapshot.index.added_since(snapshot.settings, shown)
        return None if added is None else snapshot.index.count(added)
    except RetrievalError:
        # The index that the page shows is damaged by now, or the engine is away.
        return None


def _event(name: str, told: BaseModel) -> str:
    return f"event: {name}\ndata: {told.model_dump_json()}\n\n"
