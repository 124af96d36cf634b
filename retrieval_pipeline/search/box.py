"""The one box: `a dog -grass +snow "IMG_1234.jpg" 2019/lisbon` as words, signs, files and folders.

`split` is the grammar and knows no index; `read_box` decides by the names of an index what is one.
Words that mean dates, cameras and places are read afterwards, by `understanding`.
"""

import glob
import re
from dataclasses import dataclass, replace
from typing import Literal

from retrieval_pipeline.facts.query_words import Understood
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.vector_index import Names

# A sign with words right behind it, or words in quotes; "t-shirt" and " - " are neither.
_PART = re.compile(
    r"""(?<!\S)(?:
        (?P<sign>[+\-−]?)"(?P<quoted>[^"]*\w[^"]*)"
        | (?P<only>[+\-−])(?P<word>[^\s"]*\w[^\s"]*)
    )""",
    re.VERBOSE,
)
# Words with a slash between them or behind them.
_FOLDER = re.compile(r"(?<!\S)[^\s/]+/(?:[^\s/]+/?)*(?!\S)")

Kind = Literal["plus", "minus", "name"]


@dataclass(frozen=True)
class Part:
    """What was typed with a sign or in quotes.

    Attributes:
        kind: Words to add, words to take away, or the name of a file.
        value: Without sign and quotes.
        words: As they were typed.
    """

    kind: Kind
    value: str
    words: str


@dataclass(frozen=True)
class BoxRead:
    """What was typed into the box.

    Attributes:
        query: What it asks.
        understood: What was read as something else than words to look for.
        notes: What should be known of the answer.
    """

    query: Query
    understood: tuple[Understood, ...] = ()
    notes: tuple[str, ...] = ()


def split(text: str) -> tuple[str, tuple[Part, ...]]:
    """Return the words of a text that have no sign and no quotes, and those that do.

    "-grass" and '-"tall grass"' take away, "+snow" and "+2*snow" add, and '"IMG_1234.jpg"' names a
    file.
    """
    kinds: dict[str, Kind] = {"+": "plus", "-": "minus", "−": "minus", "": "name"}
    parts = tuple(
        Part(
            kinds[match["sign"] or match["only"] or ""],
            (match["quoted"] or match["word"]).strip(),
            match[0],
        )
        for match in _PART.finditer(text)
    )
    return " ".join(_PART.sub(" ", text).split()), parts


def read_box(query: Query, names: Names) -> BoxRead:
    """Return what the text of a query asks with its signs, file names and folders taken out.

    Quoted words that name no file are words to look for, and so are words with a slash that name no
    folder, and both where the query filters by paths already. The text of a `literal` query is left
    as it is.
    """
    if query.literal or not query.text:
        return BoxRead(query)
    text, parts = split(query.text)
    understood, notes = [], []
    added: dict[str, list[str]] = {"plus": [*query.plus], "minus": [*query.minus]}
    paths: list[str] = []
    for part in parts:
        if part.kind != "name":
            added[part.kind].append(part.value)
            sign = "+" if part.kind == "plus" else "−"
            understood.append(Understood(part.words, part.kind, part.value, f"{sign} {part.value}"))
        elif not query.paths and (found := names.named(part.value)):
            paths += map(glob.escape, found)
            understood.append(Understood(part.words, "paths", part.value, f"named {part.value}"))
        else:
            text = f"{text} {part.value}".strip()
            if not query.paths:
                notes.append(f'no file is named "{part.value}": these words are looked for')
    for match in list(_FOLDER.finditer(text)):
        folder = match[0].strip("/")
        if query.paths or not (found := names.folders(folder)):
            continue
        text = " ".join(text.replace(match[0], " ", 1).split())
        for each in found:
            paths += [f"{glob.escape(each)}/*", f"*/{glob.escape(each)}/*"]
        understood.append(Understood(match[0], "paths", folder, f"in the folder {folder}"))
    if not understood:
        return BoxRead(replace(query, text=text or None), notes=tuple(notes))
    read = replace(
        query,
        text=text or None,
        plus=tuple(added["plus"]),
        minus=tuple(added["minus"]),
        paths=query.paths or tuple(paths),
    )
    return BoxRead(read, tuple(understood), tuple(notes))
