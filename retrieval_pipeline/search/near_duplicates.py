"""Pictures that look the same: copies that were resized, re-encoded or slightly edited."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from retrieval_pipeline.errors import Stopped
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.records import CompanionFile, IndexedFile
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.search.look_alike import Looks
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.vectors import Numbers, Vectors

if TYPE_CHECKING:
    from collections.abc import Sequence


# Cosine from which on two pictures may look the same (docs/benchmarks.md, "Near-duplicates").
NEAR_DUPLICATE = 0.9
# Up to here all pairs are compared: at 768 dimensions that takes six seconds on one core.
ALL_PAIRS = 20_000
# Items whose cosines with all others are computed as one product.
COMPARED_TOGETHER = 1_024
# Items that are compared with each item, where there are more.
PROPOSED = 100


@dataclass(frozen=True)
class LookAlikes:
    """An item and the later items that look the same as it.

    Attributes:
        leader: Number of the item.
        others: int64 (n,), numbers of the later items, ascending.
        cosines: float32 (n,), of each of them with the leader.
    """

    leader: int
    others: Numbers
    cosines: Vectors


def near_duplicates(
    corpus: Corpus, threshold: float, looks: Looks, stop: threading.Event | None = None
) -> list[LookAlikes]:
    """Group the items of a corpus: each later item goes to the first leader that it looks like.

    Compared with a leader and not with each other, a long row of pictures that change little from
    one to the next does not become one group. Among more than ALL_PAIRS items, Annoy
    or the engine proposes the pairs, and may miss some.

    Raises:
        Stopped: `stop` was set.
    """
    taken = np.zeros(len(corpus), np.bool_)
    groups = []
    for leader, numbers, cosines in _close(corpus, threshold):
        if stop is not None and stop.is_set():
            raise Stopped("the search for duplicates was stopped")
        if taken[leader]:
            continue
        later = (numbers > leader) & ~taken[numbers]
        later[later] = [looks.same(leader, number) for number in numbers[later].tolist()]
        numbers, cosines = numbers[later], cosines[later]
        taken[numbers] = True
        if len(numbers):
            groups.append(LookAlikes(leader, numbers, cosines))
    return groups


def _close(corpus: Corpus, threshold: float) -> Iterator[tuple[int, Numbers, Vectors]]:
    """Yield each item with the items within `threshold` of it, ascending, and their cosines."""
    for start in range(0, len(corpus), COMPARED_TOGETHER):
        block = corpus.vectors(np.arange(start, min(start + COMPARED_TOGETHER, len(corpus))))
        if len(corpus) <= ALL_PAIRS:
            scores = corpus.scan(block)
            for number in range(len(block)):
                close = np.flatnonzero(scores[:, number] >= threshold)
                yield start + number, close, scores[close, number]
        else:
            proposed = corpus.proposed(block, PROPOSED)
            for number, (vector, found) in enumerate(zip(block, proposed, strict=True), start):
                cosines = corpus.vectors(found) @ vector
                close = cosines >= threshold
                yield number, found[close], cosines[close]


@dataclass(frozen=True)
class DuplicatePicture:
    """One picture of a group of duplicates.

    Attributes:
        number: Of the item in the corpus.
        content_id: Identity of its bytes.
        cosine: To the group's first picture.
        width: Pixels of the upright picture.
        height: Pixels of the upright picture.
        format: Of its files, such as JPEG.
        files: Every file that holds it.
        paths: Their absolute paths.
        companions: The other files of the photograph, and those about it.
    """

    number: int
    content_id: str
    cosine: float
    width: int
    height: int
    format: str
    files: tuple[IndexedFile, ...]
    paths: tuple[Place, ...]
    companions: tuple[CompanionFile, ...] = ()

    @property
    def places(self) -> tuple[Location, ...]:
        """Where each of its files is."""
        return tuple(file.location for file in self.files)


@dataclass(frozen=True)
class DuplicateGroup:
    """Pictures that look the same, the first found first; one alone has several files."""

    pictures: tuple[DuplicatePicture, ...]


def duplicate_groups(
    corpus: Corpus,
    path_of: Callable[[Location], Place],
    looks: Looks,
    threshold: float = NEAR_DUPLICATE,
    stop: threading.Event | None = None,
) -> list[DuplicateGroup]:
    """Return what is in the collection more than once: files that are equal or look the same.

    Raises:
        Stopped: `stop` was set.
    """
    near = near_duplicates(corpus, threshold, looks, stop)
    grouped = {int(number) for group in near for number in (group.leader, *group.others)}
    copies = pc.list_value_length(corpus.items["locations"]).to_numpy()
    alone = [number for number in np.flatnonzero(copies > 1).tolist() if number not in grouped]
    nothing = np.empty(0, np.int64), np.empty(0, np.float32)
    groups = [LookAlikes(number, *nothing) for number in alone]
    result = []
    for group in sorted([*near, *groups], key=lambda group: group.leader):
        numbers = [group.leader, *group.others.tolist()]
        pictures = []
        cosines = [1.0, *group.cosines.tolist()]
        records = corpus.records(numbers)
        for number, item, cosine in zip(numbers, records, cosines, strict=True):
            pictures.append(
                DuplicatePicture(
                    number=number,
                    content_id=item.content_id,
                    cosine=cosine,
                    width=item.width,
                    height=item.height,
                    format=item.format,
                    files=item.files,
                    paths=tuple(map(path_of, item.locations)),
                    companions=item.companions,
                )
            )
        result.append(DuplicateGroup(tuple(pictures)))
    return result


def fold(vectors: Vectors, threshold: float, same: Callable[[int, int], bool]) -> list[list[int]]:
    """Group ranked vectors, float32 (n, dim): each goes to the first better one that is the same.

    `same` is asked about ranks whose cosine reaches the threshold.
    """
    groups: list[list[int]] = []
    leaders = np.empty_like(vectors)
    for rank, vector in enumerate(vectors):
        close = np.flatnonzero(leaders[: len(groups)] @ vector >= threshold)
        group = next((groups[each] for each in close if same(groups[each][0], rank)), None)
        if group is not None:
            group.append(rank)
        else:
            leaders[len(groups)] = vector
            groups.append([rank])
    return groups


def duplicates_json(groups: Sequence[DuplicateGroup]) -> list[list[dict[str, Any]]]:
    """Return the JSON array of groups, each an array of pictures; the first is the one to keep."""
    return [
        [
            {
                "content_id": picture.content_id,
                "cosine": round(picture.cosine, 6),
                "width": picture.width,
                "height": picture.height,
                "paths": [to_text(str(path)) for path in picture.paths],
            }
            for picture in group.pictures
        ]
        for group in groups
    ]
