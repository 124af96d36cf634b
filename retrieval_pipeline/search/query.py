"""What people ask for: words and pictures with weights, and filters. Knows no index."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.paths import to_text

# With larger weights, float32 scores would hold too little of the other parts of the query.
LARGEST_WEIGHT = 100.0

_WEIGHT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*\*\s*(\S.*)", re.DOTALL)

# Names of parameters that are given once for each value.
_SINGULAR = {"source": "sources", "path": "paths", "format": "formats"}


@dataclass(frozen=True)
class Query:
    """What to look for: all words and pictures together, away from `minus`, within the filters.

    Attributes:
        text: Words.
        images: Pictures to find similar ones of.
        like: Content ids of indexed pictures to find similar ones of.
        plus: More words; "2*snow" weighs twice what `text` does.
        minus: Words whose pictures are not wanted; "2*snow" weighs twice here as well.
        sources: Only images of these sources; empty means all.
        paths: Only images with a path, relative to their source, that one of these globs matches.
        after: Only files changed at this time or later; without a zone it is local time.
        before: Only files changed earlier than this.
        min_width: Only pictures at least so wide, in pixels.
        min_height: Only pictures at least so high, in pixels.
        formats: Only files of these formats, such as "JPEG", "png" or "tif"; empty means all.
        min_relevance: Hits below it are left out.
        collapse: Pictures that look the same as a better hit are counted there.

    Raises:
        QueryError: A text holds what is not Unicode, as bytes that are no UTF-8 become.
    """

    text: str | None = None
    images: tuple[Path, ...] = ()
    like: tuple[str, ...] = ()
    plus: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    min_width: int = 0
    min_height: int = 0
    formats: tuple[str, ...] = ()
    min_relevance: float = 0.0
    collapse: bool = False

    def __post_init__(self) -> None:
        for text in (self.text or "", *self.plus, *self.minus, *self.like, *self.formats):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise QueryError(f"{text!r} is not UTF-8 text: check how it was typed") from None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the query that a configuration or a request asks.

        Args:
            parameters: Values of fields by name; `source`, `path` and `format` stand for the
                fields in the plural, a list for a tuple.

        Raises:
            TypeError: There is no such field.
        """
        fields: dict[str, Any] = {
            _SINGULAR.get(name, name): tuple(value) if isinstance(value, list) else value
            for name, value in parameters.items()
        }
        return cls(**fields)

    def __str__(self) -> str:
        parts = [self.text or ""]
        pictures = (to_text(str(path)) for path in self.images)
        parts += [f"like {picture}" for picture in (*pictures, *self.like)]
        parts += [f"+ {text}" for text in self.plus] + [f"- {text}" for text in self.minus]
        return " ".join(part for part in parts if part)

    @property
    def filters(self) -> "Query":
        """The filters alone: what decides which items may be hits."""
        return Query(
            sources=self.sources,
            paths=self.paths,
            after=self.after,
            before=self.before,
            min_width=self.min_width,
            min_height=self.min_height,
            formats=self.formats,
        )

    @property
    def terms(self) -> "Query":
        """The words and pictures alone: what decides its vectors."""
        return Query(
            text=self.text, images=self.images, like=self.like, plus=self.plus, minus=self.minus
        )

    @property
    def wanted(self) -> list[tuple[float, str]]:
        """Weight and words of `text` and `plus`.

        Raises:
            QueryError: A weight is zero or too large.
        """
        text = [(1.0, self.text)] if self.text and self.text.strip() else []
        return text + [weighted(part) for part in self.plus if part.strip()]

    @property
    def unwanted(self) -> list[tuple[float, str]]:
        """Weight and words of `minus`; raises as `wanted` does."""
        return [weighted(part) for part in self.minus if part.strip()]


def weighted(text: str) -> tuple[float, str]:
    """Split "2*snow" into 2.0 and "snow"; words without a number weigh 1.

    Raises:
        QueryError: The weight is zero, or larger than LARGEST_WEIGHT.
    """
    match = _WEIGHT.fullmatch(text)
    if match is None:
        return 1.0, text
    weight = float(match[1])
    if weight == 0:
        raise QueryError(f'"{text}" weighs nothing: leave it out, or give it a weight above 0')
    if weight > LARGEST_WEIGHT:
        raise QueryError(f'"{text}" weighs too much: the largest weight is {LARGEST_WEIGHT:g}')
    return weight, match[2]
