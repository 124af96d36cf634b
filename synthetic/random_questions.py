"""Random pictures and random questions about them, to ask two indexes the same."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval_pipeline.config.settings import IndexSettings
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.publication import PublicationReport, publish
from retrieval_pipeline.storage.schemas import GROUPED, MANIFEST
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import write_table
from retrieval_pipeline.vectors import Vectors, VectorSpace, normalise
from retrieval_pipeline.views import Views, further_views
from synthetic.tables import (
    clustered,
    content,
    random_vectors,
    write_facts,
    write_part,
    write_sidecars,
    write_view_part,
)

WORDS = ("dog", "cat", "grass", "snow", "car", "boat", "tree", "house")
# Names that mean something in globs, in SQL, or in Unicode.
FOLDERS = ("2019", "2019/Lisbon", "a_b", "aXb", "100%", "[x]", 'we"ird', "b\\\\c", "cafe\u0301", "")
ENDINGS = ("jpg", "JPG", "png", "tif")
CAMERAS = ("Nikon D750", "Nikon Z 6", "Canon EOS 5D Mark II", "Apple iPhone 12")
KEYWORDS = ("Dog", "dog", "beach", "Straße", "2019")
START = datetime(2018, 1, 1)


VIEWS: dict[str, Views] = {"a": "tiles", "b": "tiles"}


class Words:
    """Texts as sums of fixed directions, one for each word."""

    def __init__(self, dim: int) -> None:
        self._directions = dict(zip(WORDS, random_vectors(len(WORDS), dim, seed=9), strict=True))

    def encode_texts(self, texts: list[str]) -> Vectors:
        """Return unit vectors."""
        return normalise(
            np.stack([sum(self._directions[word] for word in text.split()) for text in texts])
        )


@dataclass
class Pictures:
    """Made-up pictures in two sources: copies, RAW files beside, further views, facts."""

    seed: int = 3
    count: int = 120
    dim: int = 16
    random: Random = field(init=False)
    names: list[str] = field(init=False)
    space: VectorSpace = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.space = VectorSpace("offline", "r1", self.dim, "p")
        self.names = [f"picture{number:05d}" for number in range(self.count)]

    def write(self, home: Path, *, views: bool = True) -> Store:
        """Write the tables of all pictures."""
        store, random = Store(home), self.random
        files: dict[str, dict[str, str]] = {"a": {}, "b": {}}
        for name in self.names:
            folder = random.choice(FOLDERS)
            path = f"{folder}/{name}".strip("/")
            files["a" if random.random() < 0.6 else "b"][f"{path}.{random.choice(ENDINGS)}"] = name
            if random.random() < 0.2:
                files["b"][f"copies/{random.choice(FOLDERS)}/{name}.jpeg"] = name
            if random.random() < 0.1:
                files["a"][f"{path}.nef"] = f"{name} raw"
        names = [*self.names, *(f"{name} raw" for name in self.names)]
        vectors = clustered(len(names), self.dim, seed=self.seed)
        # Equal vectors have equal scores: then the order of the files decides.
        vectors[5:9] = vectors[4]
        for source, contents in files.items():
            self._write_manifest(store, source, contents)
            write_facts(store, source, {path: self._facts() for path in contents})
        write_sidecars(store, "a", [f"{path}.xmp" for path in [*files["a"]][:5]])
        half = len(names) // 2
        write_part(store, self.space, "a", names[:half], vectors[:half], (640, 480))
        write_part(store, self.space, "b", names[half:], vectors[half:], (1920, 1080))
        if views:
            further = further_views(640, 480, "tiles", own_is_cropped=True)
            rows = [(name, view) for name in self.names[:6] for view in further]
            write_view_part(
                store, self.space, "a", rows, clustered(len(rows), self.dim, seed=self.seed + 1)
            )
        return store

    def _write_manifest(self, store: Store, source: str, files: dict[str, str]) -> None:
        rows = [
            {
                "path": path,
                "size": self.random.randrange(1, 9_999),
                "mtime_ns": int((START + timedelta(days=self.random.randrange(900))).timestamp())
                * 10**9,
                "content_id": content(name),
                "status": "ok",
            }
            for path, name in files.items()
        ]
        table = pa.Table.from_pylist(rows, schema=MANIFEST)
        write_table(store.manifest(source), table, more={GROUPED: b"true"})

    def _facts(self) -> PictureFacts:
        random = self.random
        is_known = random.random() < 0.8
        located = random.random() < 0.5
        return PictureFacts(
            # Many on one day: a page may begin and end among them.
            taken_at=START + timedelta(days=random.choice((0, random.randrange(900))))
            if is_known
            else None,
            taken_from=Origin.EXIF if is_known else None,
            camera=random.choice((*CAMERAS, None)),
            f_number=random.choice((2.8, None)),
            latitude=38.72 + random.gauss(0, 0.3) if located else None,
            longitude=-9.14 + random.gauss(0, 0.3) if located else None,
            keywords=tuple(random.sample(KEYWORDS, random.randint(0, 2))),
            rating=random.choice((None, -1, 0, 3, 5)),
        )

    def build(self, home: Path, *, views: bool = True) -> Build:
        """Write the tables of all pictures, and build the index of them."""
        store = self.write(home, views=views)
        build_index(store, self.space, ["a", "b"], views=VIEWS, encode_texts=self._vocabulary)
        return open_current(store)

    def publish(self, store: Store, client: Client, index: IndexSettings) -> PublicationReport:
        """Publish the tables that `write` wrote."""
        return publish(
            store,
            client,
            self.space,
            ["a", "b"],
            index,
            views=VIEWS,
            encode_texts=self._vocabulary,
        )

    def _vocabulary(self, texts: list[str]) -> Vectors:
        """Give the words of the vocabulary vectors that show nothing."""
        return random_vectors(len(texts), self.dim, seed=5)

    def query(self) -> dict[str, Any]:
        """Return a question with random filters, as `Query.of` takes it."""
        random = self.random
        asked: dict[str, Any] = {"literal": True}
        if random.random() < 0.85:
            asked["text"] = " ".join(random.sample(WORDS, random.randint(1, 2)))
        if random.random() < 0.2:
            asked["plus"] = [random.choice(WORDS)]
        if random.random() < 0.3:
            asked["minus"] = [random.choice(("", "2*")) + random.choice(WORDS)]
        if random.random() < 0.2 or not {"text", "plus"} & {*asked}:
            asked["like"] = [content(random.choice(self.names[:20]))]
        filters: dict[str, Any] = {
            "source": [random.choice("ab")],
            "path": [random.choice(GLOBS)],
            "on": random.choice(("2018", "summer 2019", "2019-03")),
            "year": random.sample((2018, 2019, 2020, 1999), 2),
            "after": datetime(2018, random.randint(1, 12), 1),
            "camera": [random.choice(("nikon", "5d canon", "leica"))],
            "near": "38.72, -9.14",
            "keyword": [random.choice(("DOG", "strasse", "beach"))],
            "rating": random.choice((-1, 3)),
            "min_width": random.choice((640, 1000)),
            "format": [random.choice(("jpg", "NEF", "png", "jpeg"))],
            "file_before": datetime(2019, random.randint(1, 12), 1, tzinfo=UTC),
            "min_relevance": random.choice((0.1, 0.5, 0.9)),
            "sort": random.choice(("newest", "oldest", "name")),
            "collapse": True,
        }
        for name in random.sample([*filters], random.choice((0, 1, 1, 2, 3))):
            asked[name] = filters[name]
        return asked


GLOBS = (
    *("2019/*", "*.jpg", "a_b/*", "100%/*", "[[]x]/*", "[xy]*", '*"*', "*b\\\\c*", "café/*"),
    *("picture0000?.*", "*[05].png", "*.nef", "copies/*", "picture00010.*", "nowhere/*"),
)
