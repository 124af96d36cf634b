"""Words of a query that mean facts become filters, by the vocabulary of a build."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.facts.places import are_available, country_name
from retrieval_pipeline.facts.query_words import Understood, Vocabulary, read_words
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.search.query import Query


def understand(query: Query, vocabulary: Vocabulary) -> tuple[Query, tuple[Understood, ...]]:
    """Return a query with the facts that its words mean as filters, and what was understood.

    The words that are left are `literal`: they are not read again.

    A filter that the query sets itself is not set again by words: they stay words. The words stay
    too if the query is `literal`.
    """
    if query.literal or not query.text:
        return query, ()
    text, understood = read_words(query.text, vocabulary)
    if not understood or any(_is_set(query, each.field) for each in understood):
        return query, ()
    found = Query.of(
        {
            each.field: (each.value,) if each.field in ("cameras", "countries") else each.value
            for each in understood
        }
    )
    names = {each.field: getattr(found, each.field) for each in understood}
    return replace(query, text=text or None, literal=True, **names), understood


def _is_set(query: Query, field: str) -> bool:
    if field == "on":
        return bool(query.on or query.after or query.before or query.years)
    if field in ("near", "countries"):
        return bool(query.near or query.countries)
    return bool(getattr(query, field))


def vocabulary_of(build: Build) -> Vocabulary:
    """Return which cameras, places and years the pictures of a build know.

    Places are left out without the extra `places`, which a filter by one needs.
    """
    facts = build.facts
    if facts is None:
        return Vocabulary()
    days = pc.unique(pc.divide(facts["taken_at"].drop_null(), 86_400_000_000)).to_numpy()
    years = np.unique(days.astype("datetime64[D]").astype("datetime64[Y]")).astype(np.int64) + 1970
    towns, countries = {}, {}
    if are_available():
        pairs = facts.select(["place", "country"]).filter(pc.is_valid(facts["place"]))
        counts = pairs.group_by(["place", "country"]).aggregate([([], "count_all")])
        # Of towns of one name, the one with the most pictures is meant.
        for row in counts.sort_by([("count_all", "ascending")]).to_pylist():
            towns[row["place"]] = row["country"]
        countries = {country_name(code): code for code in _values(facts, "country")}
    return Vocabulary(tuple(_values(facts, "camera")), towns, countries, frozenset(years.tolist()))


def _values(facts: pa.Table, column: str) -> list[str]:
    return [value for value in pc.unique(facts[column]).to_pylist() if value is not None]
