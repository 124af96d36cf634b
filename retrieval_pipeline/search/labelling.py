"""Scores a person's words on all pictures of an index, and writes the table of labels."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval_pipeline.config.settings import LabelSettings, Settings
from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.search.labels import Labels, LabelsInfo, read_labels, read_labels_info
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.schemas import LABELS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import write_table
from retrieval_pipeline.vectors import Numbers, Values

# Two words that share at least this part of the pictures of both are told: people who meant two
# things by them should know.
SAME_PICTURES = 0.5
# So many pictures in common at least: of fewer, chance decides.
FEWEST_IN_COMMON = 3

# Item numbers, best first, and the relevance of each.
_Found = tuple[Numbers, Values]


@dataclass(frozen=True)
class LabelsReport:
    """What labelling did.

    Attributes:
        labels: The table.
        items: Number of pictures that were scored.
        inputs: Hash of what the index was made of.
        synonyms: Pairs of words that mark mostly the same pictures, and how many in common.
        changed: Whether the table was made anew.
    """

    labels: Labels
    items: int
    inputs: str
    synonyms: tuple[tuple[str, str, int], ...] = ()
    changed: bool = True


def update_labels(
    searcher: Searcher, asked: LabelSettings, *, progress: Progress | None = None
) -> LabelsReport:
    """Score words on all pictures of an index, unless that was done; the caller holds the lock.

    Args:
        searcher: Of the index.
        asked: The words, and from which relevance on a picture has one.
        progress: Told of the words.

    Raises:
        EncoderError: The model cannot be had.
        NotOnEngineError: An engine keeps the index, and it was not published from this home.
        QueryError: There are no words.
        StoreError: The table cannot be written.
    """
    if not asked.words:
        raise QueryError("there are no words to label with: `retrieval label invoice screenshot`")
    index = searcher.index
    store = Store(searcher.settings.home)
    info = LabelsInfo(asked=asked, build=index.name, space=index.info.space.key)
    former = read_labels(store)
    if former is not None and former.info == info:
        return LabelsReport(former, len(index), index.info.inputs, changed=False)
    searcher, progress = searcher.whole, progress or Quiet()
    found: dict[str, _Found] = {}
    progress.start("labels", len(asked.words), "words")
    for word in asked.words:
        query = Query(text=word, literal=True, min_relevance=asked.min_relevance)
        found[word] = searcher.relevant_items(query)
        progress.advance()
    progress.finish()
    synonyms = tuple(_synonyms(found))
    if asked.compete:
        found = _best_words(searcher, found)
    table = _table(searcher.corpus, found)
    write_table(store.labels, table, more={b"labels": info.model_dump_json().encode()})
    return LabelsReport(Labels(info, table), len(index), index.info.inputs, synonyms)


def refresh_labels(settings: Settings, *, progress: Progress | None = None) -> LabelsReport | None:
    """Label the current index with the words of the settings, or else those of the last time.

    The caller holds the store's lock.

    Returns:
        None if nobody has asked for any words.

    Raises:
        BuildError: Nothing is indexed yet, or the build is damaged.
        EncoderError: The model cannot be had.
        StoreError: The table is damaged or cannot be written.
    """
    asked = settings.labels
    if not asked.words:
        former = read_labels_info(Store(settings.home))
        if former is None:
            return None
        asked = former.asked
    return update_labels(Searcher.open(settings), asked, progress=progress)


def labels_json(report: LabelsReport) -> dict[str, Any]:
    """Return the JSON object of `retrieval label --json`."""
    return {
        "build": report.labels.info.build,
        **json.loads(report.labels.info.asked.model_dump_json()),
        "pictures": report.items,
        "counts": report.labels.counts,
        "synonyms": [[one, other] for one, other, _ in report.synonyms],
    }


def _synonyms(found: Mapping[str, _Found]) -> list[tuple[str, str, int]]:
    """Return the pairs of words that mark mostly the same items, and how many in common."""
    items = {word: set(numbers.tolist()) for word, (numbers, _) in found.items()}
    pairs = []
    for one, other in combinations(items, 2):
        common = len(items[one] & items[other])
        if common >= FEWEST_IN_COMMON and common >= SAME_PICTURES * len(items[one] | items[other]):
            pairs.append((one, other, common))
    return pairs


def _best_words(searcher: Searcher, found: Mapping[str, _Found]) -> dict[str, _Found]:
    """Leave each item only the word whose vector is nearest to it.

    That is how CLIP names the class of a picture (Radford et al., 2021, arXiv:2103.00020).
    """
    queries = searcher.query_vectors([Query(text=word, literal=True) for word in found])
    best = np.full(len(searcher.corpus), -np.inf, np.float32)
    winner = np.full(len(searcher.corpus), -1, np.int64)
    cosines = {
        word: searcher.corpus.vectors(numbers) @ query.wanted
        for query, (word, (numbers, _)) in zip(queries, found.items(), strict=True)
    }
    for place, (word, (numbers, _)) in enumerate(found.items()):
        better = cosines[word] > best[numbers]
        best[numbers[better]], winner[numbers[better]] = cosines[word][better], place
    return {
        word: (numbers[winner[numbers] == place], relevance[winner[numbers] == place])
        for place, (word, (numbers, relevance)) in enumerate(found.items())
    }


def _table(corpus: Corpus, found: Mapping[str, _Found]) -> pa.Table:
    ids = corpus.items["content_id"].combine_chunks()
    tables = [LABELS.empty_table()]
    for word, (numbers, relevance) in found.items():
        columns = [
            ids.take(pa.array(numbers)),
            pa.array([word] * len(numbers), pa.string()),
            pa.array(relevance, pa.float32()),
        ]
        tables.append(pa.table(columns, schema=LABELS))
    return pa.concat_tables(tables)
