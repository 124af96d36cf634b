"""What is told of a publication as a whole, in the collection beside it."""

import functools
from typing import Any

import numpy as np
from pydantic import ValidationError

from retrieval_pipeline.errors import EngineError
from retrieval_pipeline.facts.places import are_available, country_name
from retrieval_pipeline.facts.query_words import Vocabulary
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.schema import SCHEMA_VERSION, PublishedInfo, about_name
from retrieval_pipeline.search.milvus.reader import entities
from retrieval_pipeline.vectors import Vectors


class Told:
    """The words and pictures that relevance is judged by, and the values of facts; read once."""

    def __init__(self, client: Client, collection: str) -> None:
        self._client = client
        self._collection = collection

    def read_info(self) -> PublishedInfo:
        """Return what is known of the publication now.

        Raises:
            EngineError: The engine cannot be asked, or holds what this program cannot read.
        """
        rows = self._client.query(
            about_name(self._collection),
            filter='id == "info"',
            output_fields=["data"],
            limit=1,
            # By default a server may answer as it would have some seconds ago.
            consistency_level="Strong",
        )
        try:
            info = PublishedInfo.model_validate(rows[0]["data"])
        except (IndexError, ValidationError):
            info = None
        if info is None or info.schema_version != SCHEMA_VERSION:
            raise EngineError(
                f"{self._client.where}: {self._collection} was published by another version of "
                "this program: run `retrieval index`"
            )
        return info

    def is_still_of(self, build: str) -> bool:
        """Tell whether the collection holds this publication, and not one that came after it.

        Raises:
            EngineError: The engine cannot be asked.
        """
        rows = self._client.query(
            about_name(self._collection), filter='id == "info"', output_fields=["data"], limit=1
        )
        return bool(rows) and rows[0]["data"].get("build") == build

    @functools.cached_property
    def _rows(self) -> dict[str, tuple[list[Any], Vectors]]:
        """Data and vectors of the rows about the whole, by the beginning of their ids."""
        about = about_name(self._collection)
        rows = entities(self._client, about, 'id != "info"', ["id", "data", "vector"])
        found: dict[str, tuple[list[Any], list[Any]]] = {}
        for row in sorted(rows, key=lambda row: str(row["id"])):
            data, vectors = found.setdefault(row["id"].rpartition("/")[0], ([], []))
            data.append(row["data"])
            vectors.append(row["vector"])
        return {
            kind: (data, np.array(vectors, np.float32)) for kind, (data, vectors) in found.items()
        }

    @property
    def vocabulary(self) -> Vectors | None:
        """The vectors of the words of the vocabulary."""
        return self._rows["word"][1] if "word" in self._rows else None

    @property
    def sample(self) -> Vectors:
        """The vectors of items that are evenly spaced."""
        return self._rows["sample"][1]

    @property
    def sample_ids(self) -> list[str]:
        """Their content ids."""
        return [data["id"] for data in self._rows["sample"][0]]

    def values(self, kind: str) -> list[list[Any]]:
        """Return the values of a kind, as `about.values_of` wrote them."""
        parts, _ = self._rows.get(f"values/{kind}", ((), None))
        return [value for part in parts for value in part["values"]]

    def names_of(self, kind: str) -> list[str]:
        """Return the values of a kind of which each is one name: all but "place"."""
        return [str(name) for name, _ in self.values(kind)]

    @functools.cached_property
    def fact_words(self) -> Vocabulary:
        """The cameras, places and years of the pictures."""
        towns: dict[str, str] = {}
        countries: dict[str, str] = {}
        if are_available():
            # Of towns of one name, the one with the most pictures is meant: it comes last.
            places = sorted(self.values("place"), key=lambda value: int(value[2]))
            towns = {town: code for town, code, _ in places}
            countries = {country_name(code): code for code in towns.values()}
        years = frozenset(map(int, self.names_of("year")))
        return Vocabulary(tuple(self.names_of("camera")), towns, countries, years)
