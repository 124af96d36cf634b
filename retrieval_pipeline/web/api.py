"""The handlers of the JSON API: everything that the pages show, for programs."""

from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote

import numpy.typing as npt
import pyarrow.compute as pc
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse

from retrieval_pipeline.images.errors import Reason
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.ingest.manifest import Status
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.recommend.votes import recommender_names
from retrieval_pipeline.rendering.templating import as_base64
from retrieval_pipeline.search.near_duplicates import DuplicateGroup
from retrieval_pipeline.storage.content_id import CHUNK_BYTES
from retrieval_pipeline.storage.remote import Place, Remote
from retrieval_pipeline.storage.tables import read_manifest, read_quarantine
from retrieval_pipeline.web import reveal, voting
from retrieval_pipeline.web.api_models import (
    Current,
    Duplicates,
    Failure,
    Failures,
    FailuresOf,
    Ids,
    IdsOf,
    MapData,
    Month,
    OnePicture,
    Recommenders,
    ServerStatus,
    Shapes,
    ShapesOf,
    SimilarTo,
    Thumbnail,
    Token,
    Twin,
    Upload,
)
from retrieval_pipeline.web.files import GoneError, file_of, verified_copy
from retrieval_pipeline.web.library import Library
from retrieval_pipeline.web.operations import Nothing
from retrieval_pipeline.web.parameters import Page, Search, SearchPage
from retrieval_pipeline.web.pictures import AnswerPage, Details, FileLocation
from retrieval_pipeline.web.problems import RequestError
from retrieval_pipeline.web.security import Access, is_loopback
from retrieval_pipeline.web.snapshot import Snapshot

T = TypeVar("T")

# A picture never changes under its content id.
IMMUTABLE = "private, max-age=31536000, immutable"


def library_of(request: Request) -> Library:
    """Return the state of the server."""
    library: Library = request.app.state.library
    return library


def access_of(request: Request) -> Access:
    """Return who may use the server."""
    access: Access = request.app.state.access
    return access


async def search(request: Request, page: SearchPage) -> AnswerPage:
    """Search by words and pictures; without either, list everything, the newest first."""
    return (await library_of(request).search(page))[1]


async def shapes(request: Request, asked: ShapesOf) -> Shapes:
    """Tell the shapes of everything that a search finds, for a grid that makes room for it."""
    found = await library_of(request).layout(asked, asked.offset)
    return Shapes(
        shapes=_base64(found.shapes, "<u2"),
        more=found.more,
        likely=found.likely,
        months=[Month(month=month, count=count) for month, count in found.months],
    )


async def ids(request: Request, asked: IdsOf) -> Ids:
    """List the content ids of what a search finds."""
    return Ids(content_ids=await library_of(request).ids(asked))


async def current(request: Request, _: Nothing) -> Current:
    """Tell which index answers now."""
    snapshot = library_of(request).snapshot
    return Current(build=snapshot.name, images=len(snapshot.index))


async def similar(request: Request, asked: SimilarTo) -> AnswerPage:
    """Find the pictures that look most like an indexed one."""
    page = SearchPage(like=[asked.content_id], k=asked.k, offset=asked.offset)
    return (await library_of(request).search(page))[1]


async def upload(request: Request, _: Nothing) -> Upload:
    """Send a picture (the bytes of its file) to search by."""
    library = library_of(request)
    content_id = await library.uploads.receive(_chunks(request))
    indexed = library.is_open and library.snapshot.pictures.has(content_id)
    return Upload(content_id=content_id, indexed=indexed)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the picture was not sent whole") from None


async def uploaded(request: Request, asked: OnePicture) -> Response:
    """Show a picture that was uploaded; the last 200 are kept."""
    library = library_of(request)
    path = library.store.upload(asked.content_id)
    if not await library.run(path.exists):
        raise RequestError(HTTPStatus.NOT_FOUND, "that upload is not kept (any more)")
    return _immutable(request, path, asked.content_id)


async def picture(request: Request, asked: OnePicture) -> Details:
    """Tell everything about one picture."""
    library = library_of(request)
    return await library.run(library.snapshot.pictures.details, asked.content_id)


async def thumbnail(request: Request, asked: Thumbnail) -> Response:
    """Show a picture, upright, as WebP."""
    library = library_of(request)
    locations = library.snapshot.pictures.locations(asked.content_id)
    tag = f"{asked.content_id}-{asked.size}"
    if _has(request, tag):
        return _not_modified(tag)
    made = await library.thumbnails.get(asked.content_id, asked.size, locations)
    return _immutable(request, made, tag)


async def image(request: Request, asked: OnePicture) -> Response:
    """Show a picture with all its pixels: its file, or a WebP of what browsers cannot show."""
    library = library_of(request)
    snapshot = library.snapshot
    media_type = await library.run(snapshot.pictures.media_type, asked.content_id)
    if media_type is None:
        return await thumbnail(request, Thumbnail(content_id=asked.content_id, size="huge"))
    if _has(request, asked.content_id):
        return _not_modified(asked.content_id)
    copy, _ = await library.run(first_copy, snapshot, asked.content_id)
    headers = {
        "etag": f'"{asked.content_id}"',
        "cache-control": IMMUTABLE,
        "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    }
    return StreamingResponse(_sent(copy), media_type=media_type, headers=headers)


async def file(request: Request, asked: OnePicture) -> Response:
    """Download the file of a picture, as it is."""
    library = library_of(request)
    copy, location = await library.run(first_copy, library.snapshot, asked.content_id)
    name = Path(to_path(location.path)).name
    encoded = quote(name.encode("utf-8", "surrogateescape"))
    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{encoded}",
        "content-security-policy": "sandbox; default-src 'none'",
    }
    return StreamingResponse(_sent(copy), media_type="application/octet-stream", headers=headers)


def _sent(copy: IO[bytes]) -> Iterator[bytes]:
    with copy:
        while chunk := copy.read(CHUNK_BYTES):
            yield chunk


async def show_in_folder(request: Request, asked: OnePicture) -> Response:
    """Open the folder of a picture in the file manager of the machine that serves."""
    library = library_of(request)
    if not may_reveal(request):
        raise RequestError(
            HTTPStatus.CONFLICT, "this works only in a browser on the machine that serves"
        )
    path, _ = await library.run(_first_file, library.snapshot, asked.content_id)
    if isinstance(path, Remote):
        raise RequestError(HTTPStatus.CONFLICT, "the picture is not on this machine")
    await library.run(reveal.reveal, path)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def may_reveal(request: Request) -> bool:
    """Tell whether the client sits at this machine, which has a file manager."""
    client = request.client
    local = client is not None and is_loopback(client.host)
    return local and access_of(request).token is None and reveal.opener() is not None


def first_copy(snapshot: Snapshot, content_id: str) -> tuple[IO[bytes], Location]:
    """Return the bytes of the first file that still holds a picture; raises GoneError."""
    return _first(
        snapshot, content_id, lambda place: verified_copy(snapshot.settings, place, content_id)
    )


def _first_file(snapshot: Snapshot, content_id: str) -> tuple[Place, Location]:
    """Return the first file of a picture that is there; raises GoneError."""
    return _first(snapshot, content_id, lambda place: file_of(snapshot.settings, place))


def _first(snapshot: Snapshot, content_id: str, get: Callable[[Location], T]) -> tuple[T, Location]:
    problem = GoneError("the picture has no file")
    for location in snapshot.pictures.locations(content_id):
        try:
            return get(location), location
        except GoneError as error:
            problem = error
    raise problem


async def recommenders(request: Request, _: Nothing) -> Recommenders:
    """List the recommenders that somebody voted in."""
    library = library_of(request)
    return Recommenders(names=await library.run(recommender_names, library.store))


async def judgements(request: Request, asked: voting.Named) -> voting.Votes:
    """Tell the votes of a recommender."""
    library = library_of(request)
    return await library.run(voting.votes, library.snapshot, asked.name)


async def judge(request: Request, vote: voting.Vote) -> voting.Votes:
    """Vote on a picture; of several votes on one the last counts."""
    library = library_of(request)
    return await library.run(voting.vote, library.snapshot, vote)


async def set_aside(request: Request, asked: voting.OnePicture) -> Response:
    """Do not ask about a picture again while this server runs: it cannot be shown."""
    library = library_of(request)
    await library.run(voting.set_aside, library.snapshot, asked.name, asked.content_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def undo(request: Request, asked: voting.Retraction) -> voting.Undone:
    """Take back the last vote of a recommender, or the votes on one picture."""
    library = library_of(request)
    if asked.content_id is None:
        return await library.run(voting.undo, library.snapshot, asked.name)
    return await library.run(voting.retract, library.snapshot, asked.name, asked.content_id)


async def next_picture(request: Request, asked: voting.Named) -> voting.Next:
    """Tell the picture to vote on next."""
    library = library_of(request)
    return await library.run(voting.next_picture, library.snapshot, asked.name)


async def ranking(request: Request, asked: voting.RankingOf) -> voting.Recommendations:
    """List the pictures that a recommender recommends, best first."""
    library = library_of(request)
    return await library.run(voting.ranking, library.snapshot, asked.name, asked.k)


async def map_data(request: Request, asked: Search) -> MapData:
    """Give the map of all pictures, with their nearness to a query if there is one."""
    library = library_of(request)
    snapshot = library.snapshot
    query_vectors = None
    if asked.asks:
        query_vectors = await library.query_vectors(snapshot, asked)
    return await library.run(snapshot.mapped().told, query_vectors)


def _base64(numbers: npt.NDArray[Any], dtype: str) -> str:
    return as_base64(numbers.astype(dtype).tobytes())


async def duplicates(request: Request, page: Page) -> Duplicates:
    """List the pictures that are there more than once, a group of equal ones each."""
    future = library_of(request).duplicates()
    if not future.done():
        return Duplicates(ready=False, total=0, groups=[])
    groups = future.result()
    shown = groups[page.offset : page.offset + page.k]
    return Duplicates(ready=True, total=len(groups), groups=[_twins(group) for group in shown])


def _twins(group: DuplicateGroup) -> list[Twin]:
    return [
        Twin(
            content_id=each.content_id,
            cosine=round(each.cosine, 6),
            width=each.width,
            height=each.height,
            locations=[FileLocation.of(place) for place in each.places],
        )
        for each in group.pictures
    ]


async def quarantine(request: Request, asked: FailuresOf) -> Failures:
    """List the files that could not be used, and why."""
    library = library_of(request)
    return await library.run(_failures, library, asked)


def _failures(library: Library, asked: FailuresOf) -> Failures:
    space = library.space()
    failures = []
    for source in library.settings.source_names:
        manifest = read_manifest(library.store, source)
        unread = manifest.filter(pc.not_equal(manifest["status"], Status.OK.value))
        failures += [
            Failure(
                source=source,
                path=row["path"],
                reason=Reason.TOO_LARGE if row["status"] == Status.TOO_LARGE else Reason.UNREADABLE,
                detail=row["error"] or row["status"],
                attempts=1,
                last_tried=None,
            )
            for row in unread.to_pylist()
        ]
        kept = read_quarantine(library.store, space, source)
        present = pc.is_in(kept["content_id"], manifest["content_id"].combine_chunks())
        failures += [
            Failure(source=source, **{name: row[name] for name in _QUARANTINE_FIELDS})
            for row in kept.filter(present).to_pylist()
        ]
    if asked.source is not None:
        failures = [each for each in failures if each.source == asked.source]
    reasons: dict[str, int] = {}
    for each in failures:
        reasons[each.reason] = reasons.get(each.reason, 0) + 1
    if asked.reason is not None:
        failures = [each for each in failures if each.reason == asked.reason]
    page = failures[asked.offset : asked.offset + asked.k]
    return Failures(total=len(failures), reasons=reasons, failures=page)


_QUARANTINE_FIELDS = ("path", "reason", "detail", "attempts", "last_tried")


async def status(request: Request, _: Nothing) -> ServerStatus:
    """Tell what is indexed, by which model, how fresh, and what failed."""
    library = library_of(request)
    state, runs = await library.status(), await library.run(library.runs)
    serving = library.snapshot.name if library.is_open else None
    running = await library.run(library.is_being_written)
    return ServerStatus(**dict(state), running=running, serving=serving, runs=runs)


async def token(request: Request, _: Nothing) -> Token:
    """Give what requests that change something carry in the header X-Retrieval-Token."""
    return Token(token=access_of(request).csrf_token)


def _has(request: Request, tag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return f'"{tag}"' in (each.strip().removeprefix("W/") for each in known.split(","))


def _not_modified(tag: str) -> Response:
    headers = {"etag": f'"{tag}"', "cache-control": IMMUTABLE}
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)


def _immutable(request: Request, picture: Path | bytes, tag: str) -> Response:
    """Return a WebP picture, a file or its bytes, that never changes under its address."""
    if _has(request, tag):
        return _not_modified(tag)
    headers = {"etag": f'"{tag}"', "cache-control": IMMUTABLE}
    if isinstance(picture, bytes):
        return Response(picture, media_type="image/webp", headers=headers)
    return FileResponse(picture, media_type="image/webp", headers=headers)
