"""The operations of the JSON API: method, path, parameters, answers and problems."""

from http import HTTPStatus

from retrieval_pipeline.web import albums, news, selection, suggestions, voting
from retrieval_pipeline.web.api import (
    current,
    duplicates,
    file,
    ids,
    image,
    judge,
    judgements,
    map_data,
    next_picture,
    picture,
    quarantine,
    ranking,
    recommenders,
    search,
    set_aside,
    shapes,
    show_in_folder,
    similar,
    status,
    thumbnail,
    token,
    undo,
    upload,
    uploaded,
)
from retrieval_pipeline.web.api_models import (
    Current,
    Duplicates,
    Failures,
    FailuresOf,
    Ids,
    IdsOf,
    MapData,
    OnePicture,
    Recommenders,
    ServerStatus,
    Shapes,
    ShapesOf,
    SimilarTo,
    Thumbnail,
    Token,
    Upload,
)
from retrieval_pipeline.web.indexing import RunState
from retrieval_pipeline.web.operations import Operation
from retrieval_pipeline.web.parameters import Page, Search, SearchPage
from retrieval_pipeline.web.pictures import AnswerPage, Details

_NO_INDEX = HTTPStatus.SERVICE_UNAVAILABLE
_UNKNOWN = HTTPStatus.NOT_FOUND
_FULL = HTTPStatus.INSUFFICIENT_STORAGE
_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
_UNSUPPORTED = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

OPERATIONS = (
    Operation(
        "GET", "/api/search", search, SearchPage, returns=AnswerPage, problems=(_UNKNOWN, _NO_INDEX)
    ),
    Operation(
        "GET", "/api/shapes", shapes, ShapesOf, returns=Shapes, problems=(_UNKNOWN, _NO_INDEX)
    ),
    Operation("GET", "/api/ids", ids, IdsOf, returns=Ids, problems=(_UNKNOWN, _NO_INDEX)),
    Operation(
        "GET",
        "/api/suggestions",
        suggestions.suggestions,
        suggestions.Typed,
        returns=suggestions.Suggestions,
        problems=(_NO_INDEX,),
    ),
    Operation("GET", "/api/current", current, returns=Current, problems=(_NO_INDEX,)),
    Operation(
        "GET",
        "/api/similar",
        similar,
        SimilarTo,
        returns=AnswerPage,
        problems=(_UNKNOWN, _NO_INDEX),
    ),
    Operation(
        "POST",
        "/api/uploads",
        upload,
        returns=Upload,
        takes="application/octet-stream",
        problems=(
            HTTPStatus.REQUEST_TIMEOUT,
            _LARGE,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
            _FULL,
        ),
    ),
    Operation(
        "GET",
        "/api/uploads/{content_id}",
        uploaded,
        OnePicture,
        media="image/webp",
        problems=(_UNKNOWN,),
    ),
    Operation(
        "GET",
        "/api/pictures/{content_id}",
        picture,
        OnePicture,
        returns=Details,
        problems=(_UNKNOWN, _NO_INDEX),
    ),
    Operation(
        "GET",
        "/api/pictures/{content_id}/thumbnail",
        thumbnail,
        Thumbnail,
        media="image/webp",
        problems=(_UNKNOWN, _NO_INDEX, _FULL),
    ),
    Operation(
        "GET",
        "/api/pictures/{content_id}/image",
        image,
        OnePicture,
        media="image/*",
        problems=(_UNKNOWN, _NO_INDEX, _FULL),
    ),
    Operation(
        "GET",
        "/api/pictures/{content_id}/file",
        file,
        OnePicture,
        media="application/octet-stream",
        problems=(_UNKNOWN, _NO_INDEX),
    ),
    Operation(
        "POST",
        "/api/pictures/{content_id}/show-in-folder",
        show_in_folder,
        OnePicture,
        problems=(_UNKNOWN, HTTPStatus.CONFLICT, _NO_INDEX),
    ),
    Operation("GET", "/api/recommenders", recommenders, returns=Recommenders),
    Operation(
        "GET",
        "/api/judgements",
        judgements,
        voting.Named,
        returns=voting.Votes,
        problems=(_NO_INDEX,),
    ),
    Operation(
        "POST",
        "/api/judgements",
        judge,
        body=voting.Vote,
        returns=voting.Votes,
        problems=(_UNKNOWN, _LARGE, _UNSUPPORTED, _NO_INDEX, _FULL),
    ),
    Operation(
        "DELETE",
        "/api/judgements",
        undo,
        voting.Retraction,
        returns=voting.Undone,
        problems=(_NO_INDEX, _FULL),
    ),
    Operation(
        "POST",
        "/api/judgements/several",
        selection.judge_several,
        body=selection.SelectedVotes,
        largest_body=selection.SELECTION_BYTES,
        returns=voting.Votes,
        problems=(_UNKNOWN, _LARGE, _UNSUPPORTED, _NO_INDEX, _FULL),
    ),
    Operation("GET", "/api/albums", albums.albums, returns=albums.Albums),
    Operation(
        "POST",
        "/api/albums/add",
        albums.add,
        body=albums.InAlbum,
        largest_body=selection.SELECTION_BYTES,
        returns=albums.Album,
        problems=(_LARGE, _UNSUPPORTED, _NO_INDEX, _FULL),
    ),
    Operation(
        "POST",
        "/api/albums/remove",
        albums.remove,
        body=albums.InAlbum,
        largest_body=selection.SELECTION_BYTES,
        returns=albums.Album,
        problems=(_LARGE, _UNSUPPORTED, _FULL),
    ),
    Operation(
        "POST",
        "/api/paths",
        selection.paths,
        body=selection.Selected,
        largest_body=selection.SELECTION_BYTES,
        returns=selection.Paths,
        problems=(_LARGE, _UNSUPPORTED, _NO_INDEX),
    ),
    Operation(
        "POST",
        "/api/zip",
        selection.archive,
        body=selection.Selected,
        largest_body=selection.SELECTION_BYTES,
        media="application/zip",
        problems=(_LARGE, _UNSUPPORTED, _NO_INDEX),
    ),
    Operation(
        "POST",
        "/api/set-aside",
        set_aside,
        body=voting.OnePicture,
        problems=(_NO_INDEX,),
    ),
    Operation(
        "GET",
        "/api/recommenders/{name}/next",
        next_picture,
        voting.Named,
        returns=voting.Next,
        problems=(_NO_INDEX,),
    ),
    Operation(
        "GET",
        "/api/recommenders/{name}/ranking",
        ranking,
        voting.RankingOf,
        returns=voting.Recommendations,
        problems=(_NO_INDEX,),
    ),
    Operation("GET", "/api/map", map_data, Search, returns=MapData, problems=(_UNKNOWN, _NO_INDEX)),
    Operation(
        "GET", "/api/duplicates", duplicates, Page, returns=Duplicates, problems=(_NO_INDEX,)
    ),
    Operation(
        "GET",
        "/api/quarantine",
        quarantine,
        FailuresOf,
        returns=Failures,
        problems=(_NO_INDEX,),
    ),
    Operation("GET", "/api/run", news.run, returns=RunState),
    Operation(
        "POST",
        "/api/run",
        news.start_run,
        returns=RunState,
        problems=(HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE),
    ),
    Operation(
        "DELETE", "/api/run", news.stop_run, returns=RunState, problems=(HTTPStatus.CONFLICT,)
    ),
    Operation("GET", "/api/status", status, returns=ServerStatus, problems=(_NO_INDEX,)),
    Operation("GET", "/api/token", token, returns=Token),
)
