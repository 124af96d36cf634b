"""Words of a query that mean facts become filters, by the vocabulary of a corpus."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.facts.places import are_available, country_name
from retrieval_pipeline.facts.query_words import Understood, Vocabulary, read_words
from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.index.corpus import Corpus
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


def vocabulary_of(corpus: Corpus) -> Vocabulary:
    """Return which cameras, places and years the pictures of a corpus know.

    Places are left out without the extra `places`, which a filter by one needs.
    """
    facts = corpus.facts
    if facts is None:
        return Vocabulary()
    # `to_numpy` would import pandas if it is installed, and that takes longer than all the rest.
    taken = np.from_dlpack(one_chunk(facts["taken_at"].drop_null())).astype("datetime64[us]")
    years = 1970 + np.unique(taken.astype("datetime64[Y]").astype(np.int64))
    towns: dict[str, str] = {}
    countries: dict[str, str] = {}
    if facts["place"].null_count < len(facts) and are_available():
        places, codes = (one_chunk(facts[name]) for name in ("place", "country"))
        located = pc.and_(pc.is_valid(places), pc.is_valid(codes))
        pairs, counts = np.unique(
            np.stack([np.from_dlpack(each.indices.filter(located)) for each in (places, codes)]),
            axis=1,
            return_counts=True,
        )
        # Of towns of one name, the one with the most pictures is meant: it comes last.
        for place, code in pairs[:, np.argsort(counts, kind="stable")].T.tolist():
            towns[places.dictionary[place].as_py()] = codes.dictionary[code].as_py()
        countries = {country_name(code): code for code in codes.dictionary.to_pylist()}
    return Vocabulary(tuple(_values(facts, "camera")), towns, countries, frozenset(years.tolist()))


def _values(facts: pa.Table, column: str) -> list[str]:
    return [value for value in pc.unique(facts[column]).to_pylist() if value is not None]
