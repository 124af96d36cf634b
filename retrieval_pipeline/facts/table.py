"""The rows of a table of facts as Python objects."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import pyarrow as pa

from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.storage.schemas import FACTS

_OF_FACTS = tuple(field.name for field in fields(PictureFacts))
_LISTS = ("keywords", "problems")


@dataclass(frozen=True, slots=True)
class FactsRow:
    """The facts of one file.

    Attributes:
        content_id: Hash of the content of the file.
        path: Relative to the source, as in the manifest.
        sidecar_digest: Hash of the paths, sizes and times of its sidecars; None without any.
        facts: What is known of the picture.
    """

    content_id: str
    path: str
    sidecar_digest: str | None
    facts: PictureFacts


def to_table(rows: Iterable[FactsRow]) -> pa.Table:
    """Return the rows as a table with the columns of FACTS."""
    values: dict[str, list[object]] = {name: [] for name in FACTS.names}
    for row in rows:
        for name, column in values.items():
            column.append(getattr(row.facts if name in _OF_FACTS else row, name))
    return pa.table([pa.array(values[field.name], field.type) for field in FACTS], schema=FACTS)


def from_table(table: pa.Table) -> Iterator[FactsRow]:
    """Yield the rows of a table with the columns of FACTS.

    Raises:
        ValueError: A date is of an origin that this version does not know.
    """
    for row in table.to_pylist():
        facts = {name: row[name] for name in _OF_FACTS}
        origin = Origin(facts["taken_from"]) if facts["taken_from"] else None
        facts |= {name: tuple(facts[name]) for name in _LISTS} | {"taken_from": origin}
        yield FactsRow(row["content_id"], row["path"], row["sidecar_digest"], PictureFacts(**facts))
