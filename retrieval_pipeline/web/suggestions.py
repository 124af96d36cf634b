"""What a text that is being typed into the box may become: words, places, cameras, files."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from retrieval_pipeline.paths import printable
from retrieval_pipeline.web.api import library_of
from retrieval_pipeline.web.browse import folder_glob
from retrieval_pipeline.web.parameters import Text
from retrieval_pipeline.web.snapshot import Snapshot

# Suggestions of one kind, and of all.
OF_EACH, ALL = 3, 8
# Characters before names of files are suggested: one is in nearly every name.
LEAST_OF_A_NAME = 2


class Typed(BaseModel):
    """What was typed so far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Text = Field(default="", description="What was typed so far.")


class Suggestion(BaseModel):
    """What the text may become.

    Attributes:
        kind: Of what it names.
        label: How it is shown.
        text: What the box holds then.
        parameter: Name of a filter that is set then; None if none is.
        value: Of that filter.
    """

    kind: Literal["words", "folder", "camera", "place", "file"]
    label: str
    text: str
    parameter: str | None = None
    value: str | None = None


class Suggestions(BaseModel):
    """What a text may become, the likeliest first."""

    suggestions: list[Suggestion]


async def suggestions(request: Request, typed: Typed) -> Suggestions:
    """Suggest how a text that is being typed may go on."""
    library = library_of(request)
    return Suggestions(suggestions=await library.run(_suggest, library.snapshot, typed.text))


def _suggest(snapshot: Snapshot, text: str) -> list[Suggestion]:
    text = text.lstrip()
    before, _, last = text.rpartition(" ")
    if not last.strip('+-−"'):
        return []
    found = [
        *_words(snapshot, text, before, last),
        *_filters(snapshot, before, last),
        *_files(snapshot, text),
    ]
    return found[:ALL]


def _words(snapshot: Snapshot, text: str, before: str, last: str) -> Iterator[Suggestion]:
    """Yield names of clusters that begin with the text, or with its last word."""
    told = 0
    sign = last[:1] if last[:1] in "+-−" else ""
    for name in snapshot.cluster_names:
        if name.startswith(text.lower()):
            completed = name
        elif name.startswith(last.removeprefix(sign).lower()):
            quoted = f'"{name}"' if sign and " " in name else name
            completed = f"{before} {sign}{quoted}".strip()
        else:
            continue
        if completed != text:
            yield Suggestion(kind="words", label=completed, text=completed)
            told += 1
        if told == OF_EACH:
            return


def _filters(snapshot: Snapshot, before: str, last: str) -> Iterator[Suggestion]:
    """Yield folders, cameras and towns with a word that begins with the last word."""
    wanted = last.lower()
    for folder in snapshot.index.file_names.folders_like(last, OF_EACH):
        label = printable(folder).replace("/", " › ")
        yield Suggestion(
            kind="folder", label=label, text=before, parameter="path", value=folder_glob(folder)
        )
    vocabulary = snapshot.index.fact_words
    towns = [f"{town}, {country}" for town, country in vocabulary.towns.items()]
    kinds: tuple[tuple[Literal["camera", "place"], str, list[str]], ...] = (
        ("camera", "camera", [*vocabulary.cameras]),
        ("place", "near", towns),
    )
    for kind, parameter, names in kinds:
        fitting = [
            name for name in names if any(word.startswith(wanted) for word in name.lower().split())
        ]
        for name in fitting[:OF_EACH]:
            yield Suggestion(
                kind=kind, label=printable(name), text=before, parameter=parameter, value=name
            )


def _files(snapshot: Snapshot, text: str) -> Iterator[Suggestion]:
    """Yield names of files that begin with the text or hold it."""
    wanted = text.strip().strip('"')
    if len(wanted) < LEAST_OF_A_NAME:
        return
    for name in snapshot.index.file_names.like(wanted, OF_EACH):
        if '"' not in name:
            yield Suggestion(kind="file", label=printable(name), text=f'"{name}"')
