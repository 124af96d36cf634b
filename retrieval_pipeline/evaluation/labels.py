"""Labelled queries: what is asked, and the pictures that are right, from files, folders or votes.

Formats: TOML, CSV, JSON lines, and captions as COCO (annotations), Karpathy's splits of COCO and
Flickr30k (sentences), or Flickr30k's token file have them.
"""

import csv
import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_pipeline.config.settings import EvaluationSettings
from retrieval_pipeline.errors import EvaluationError
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.recommend.votes import read_judgements, require_recommender
from retrieval_pipeline.storage.store import Store

# A field of a CSV file, such as a long caption, may be so long, in characters.
LONGEST_FIELD = 1_000_000


@dataclass(frozen=True)
class LabelledQuery:
    """A query and its right answers.

    Attributes:
        text: What is asked; "" if `like` asks.
        relevant: Paths or globs of the right pictures, as the file has them; or content ids if
            `by_content`. Empty if nothing is right: the thing is absent.
        like: Content id of a picture that asks for similar ones.
        by_content: Whether `relevant` holds content ids.
    """

    text: str
    relevant: tuple[str, ...]
    like: str | None = None
    by_content: bool = False


def read_labelled(file: Path) -> tuple[list[LabelledQuery], int]:
    """Read labelled queries; those of the same words become one, with the answers of all.

    Returns:
        The queries in the order of the file, and how many entries they come from.

    Raises:
        EvaluationError: The file cannot be read, is in none of the formats, or has no query.
    """
    try:
        pairs = list(_pairs(file))
    except OSError as error:
        raise EvaluationError(f"{file}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        # UnicodeDecodeError, JSONDecodeError and TOMLDecodeError are all ValueErrors.
        raise EvaluationError(f"{file}: {error}") from None
    answers: dict[str, dict[str, None]] = {}
    for text, relevant in pairs:
        answers.setdefault(text, {}).update(dict.fromkeys(relevant))
    if not answers:
        raise EvaluationError(f"{file}: there is no query in it")
    return [LabelledQuery(text, tuple(paths)) for text, paths in answers.items()], len(pairs)


def _pairs(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the words and the relevant paths of each entry."""
    kind = file.suffix.lower()
    if kind == ".toml":
        entries = tomllib.loads(file.read_text("utf-8")).get("queries", [])
        if not isinstance(entries, list):
            raise ValueError("`queries` must be a list of tables: [[queries]]")
        for number, entry in enumerate(entries, 1):
            yield _entry(entry, f"query {number}")
    elif kind == ".csv":
        yield from _csv_rows(file)
    elif kind in (".jsonl", ".ndjson"):
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _entry(json.loads(line), f"line {number}")
    elif kind == ".json":
        yield from _captions(json.loads(file.read_text("utf-8")))
    elif kind in (".token", ".txt"):
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                name, tab, caption = line.rstrip("\n").partition("\t")
                if not tab:
                    raise ValueError(
                        f'line {number} is no caption of Flickr30k: "picture.jpg#0", a tab, words'
                    )
                yield caption.strip(), (name.rpartition("#")[0] or name,)
    else:
        raise ValueError("must end in .toml, .csv, .jsonl, .json (COCO) or .token (Flickr30k)")


def _entry(entry: Any, where: str) -> tuple[str, tuple[str, ...]]:
    text = entry.get("query") if isinstance(entry, dict) else None
    relevant = entry.get("relevant") if isinstance(entry, dict) else None
    if isinstance(relevant, str):
        relevant = [relevant]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{where} has no "query" with words')
    if not isinstance(relevant, list) or not all(isinstance(path, str) for path in relevant):
        raise ValueError(f'{where} has no "relevant": a list of paths, empty if nothing is right')
    return text.strip(), tuple(relevant)


def _csv_rows(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    csv.field_size_limit(LONGEST_FIELD)
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        names = {name.strip().lower() for name in reader.fieldnames or ()}
        if not {"query", "relevant"} <= names:
            raise ValueError('the first line must name the columns "query" and "relevant"')
        for row in reader:
            values = {name.strip().lower(): value for name, value in row.items() if name and value}
            path = values.get("relevant", "").strip()
            where = f"line {reader.line_num}"
            yield _entry({"query": values.get("query"), "relevant": [path] if path else []}, where)


def _captions(found: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the captions of COCO's annotations, or of Karpathy's splits, and their pictures."""
    try:
        if "annotations" in found:
            names = {image["id"]: str(image["file_name"]) for image in found["images"]}
            for annotation in found["annotations"]:
                yield str(annotation["caption"]).strip(), (names[annotation["image_id"]],)
        else:
            for image in found["images"]:
                for sentence in image["sentences"]:
                    yield str(sentence["raw"]).strip(), (str(image["filename"]),)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"not as COCO's captions are: `images` and `annotations` ({error!r} is missing)"
        ) from None


def folder_queries(corpus: Corpus) -> list[LabelledQuery]:
    """Return a query for each folder: its name asks for the pictures in it.

    A picture directly in a source's directory belongs to the source's name. Folders of one name are
    one query. "_" and "-" are read as spaces.
    """
    folders: dict[str, dict[str, None]] = {}
    content_ids = corpus.items["content_id"].to_pylist()
    for content, places in zip(content_ids, corpus.items["locations"].to_pylist(), strict=True):
        for place in places:
            parts = place["path"].split("/")
            name = parts[-2] if len(parts) > 1 else place["source"]
            folders.setdefault(name, {})[content] = None
    return [
        LabelledQuery(name.replace("_", " ").replace("-", " "), tuple(content), by_content=True)
        for name, content in sorted(folders.items())
    ]


def settings_queries(settings: EvaluationSettings, corpus: Corpus) -> list[LabelledQuery]:
    """Return the queries that the settings name; the folders are those of `corpus`.

    Raises:
        EvaluationError: The file cannot be read, is in none of the formats, or has no query.
    """
    return folder_queries(corpus) if settings.file is None else read_labelled(settings.file)[0]


def vote_queries(store: Store, name: str) -> list[LabelledQuery]:
    """Return a query for each picture that a recommender's votes like: it asks for the others.

    Raises:
        EvaluationError: Fewer than two are liked.
        RecommendError: There is no such recommender.
    """
    require_recommender(store, name)
    last = {vote.content_id: vote.liked for vote in read_judgements(store, name)}
    liked = [content for content, is_liked in last.items() if is_liked]
    if len(liked) < 2:
        raise EvaluationError(f'the votes of "{name}" like fewer than two pictures: vote for more')
    return [
        LabelledQuery(
            "", tuple(other for other in liked if other != content), content, by_content=True
        )
        for content in liked
    ]


class Resolver:
    """Finds the items that labels name."""

    def __init__(self, corpus: Corpus, matching: Callable[[str], Sequence[int]]) -> None:
        """Find them in `corpus`; `matching` gives the items that a glob matches."""
        self._corpus = corpus
        self._matching = matching
        self._paths: dict[str, list[int]] | None = None

    def items(self, query: LabelledQuery) -> tuple[list[int], list[str]]:
        """Return the right items of a query, ascending, and the labels that name none."""
        found: set[int] = set()
        unknown = []
        for label in query.relevant:
            numbers = self._items(label, query.by_content)
            found.update(numbers)
            if not numbers:
                unknown.append(label)
        return sorted(found), unknown

    def _items(self, label: str, by_content: bool) -> Sequence[int]:
        if by_content:
            number = self._corpus.number_of(label)
            return [] if number is None else [number]
        if numbers := self._by_path().get(label.removeprefix("./")):
            return numbers
        return self._matching(label) if any(sign in label for sign in "*?[") else []

    def _by_path(self) -> dict[str, list[int]]:
        """Items by path below the source, by source and path, and by the name of the file."""
        if self._paths is None:
            self._paths = {}
            for number, places in enumerate(self._corpus.items["locations"].to_pylist()):
                for place in places:
                    path = to_text(place["path"])
                    for name in {path, f"{place['source']}/{path}", path.rpartition("/")[2]}:
                        self._paths.setdefault(name, []).append(number)
        return self._paths
