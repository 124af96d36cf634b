"""How long filters take over a million items: those by facts, and that by the time of the file.

    python benchmarks/fact_filters.py [--items 1000000]

The tables are made up and mapped from files, as those of a build are; no vectors are needed.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from retrieval_pipeline.index.companions import COMPANION_COLUMNS
from retrieval_pipeline.index.facts_table import FACTS_COLUMNS
from retrieval_pipeline.index.items import LOCATION
from retrieval_pipeline.search.filters import passing
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.sorting import in_order
from retrieval_pipeline.search.understanding import understand, vocabulary_of

TRIES = 5
QUERIES = {
    "time of the file (`--file-after 2019`)": {"file_after": "2019"},
    "date taken (`--after 2019`)": {"after": "2019"},
    "`--on 'summer 2019'`": {"on": "summer 2019"},
    "`--year 2018 --year 2020`": {"years": [2018, 2020]},
    "`--camera nikon`": {"cameras": ["nikon"]},
    "`--near '38.7, -9.1'`": {"near": "38.7, -9.1"},
    "`--country PT`": {"countries": ["PT"]},
    "`--keyword beach`": {"keywords": ["beach"]},
    "`--rating 4`": {"min_rating": 4},
    "date, camera, place and rating together": {
        "on": "2019",
        "cameras": ["nikon"],
        "near": "38.7, -9.1",
        "min_rating": 3,
    },
}


@dataclass(frozen=True)
class Tables:
    """What the filters use of a build.

    Attributes:
        items: The locations of the items.
        facts: Their facts.
        info: The names of the sources.
        companions: Other files of photographs: none.
    """

    items: pa.Table
    facts: pa.Table
    info: SimpleNamespace
    companions: pa.Table

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.items)


def made_up(count: int, directory: Path) -> Tables:
    """Write tables of so many items, and map them; a fifth of each fact is unknown."""
    rng = np.random.default_rng(0)

    unknown = rng.random(count) < 0.2
    start = int(np.datetime64("2005-01-01", "us").astype(np.int64))
    taken = start + rng.integers(0, 20 * 365 * 86_400_000_000, count)
    names = {
        "camera": [f"{make} {model}" for make in ("Nikon", "Canon", "Sony") for model in range(20)],
        "country": ["PT", "ES", "FR", "DE", "IT", "US", "JP"],
    }
    keywords = pa.array([f"word {number}" for number in range(500)] + ["beach"])
    ends = np.concatenate([[0], np.cumsum(rng.integers(0, 5, count))])
    columns = {
        "taken_at": pa.array(taken, mask=unknown),
        "latitude": pa.array(rng.uniform(-60, 70, count), mask=unknown),
        "longitude": pa.array(rng.uniform(-180, 180, count), mask=unknown),
        "rating": pa.array(rng.integers(0, 6, count, np.int8), mask=unknown),
        "keywords": pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()),
            keywords.take(pa.array(rng.integers(0, len(keywords), ends[-1]))),
        ),
    }
    for name, values in names.items():
        chosen = pa.array(rng.integers(0, len(values), count, np.int32), mask=unknown)
        columns[name] = pa.DictionaryArray.from_arrays(chosen, pa.array(values))
    facts = pa.table(
        [
            columns[field.name] if field.name in columns else pa.nulls(count, field.type)
            for field in FACTS_COLUMNS
        ],
        schema=FACTS_COLUMNS,
    )
    paths = pa.array([f"2019/08/IMG_{number:07d}.jpg" for number in range(count)])
    places = pa.StructArray.from_arrays(
        [
            pa.array(["a"]).take(pa.array(np.zeros(count, np.int64))),
            paths,
            pa.array(np.ones(count, np.int64)),
            pa.array(taken * 1_000),
        ],
        fields=list(LOCATION),
    )
    locations = pa.ListArray.from_arrays(pa.array(np.arange(count + 1), pa.int32()), places)
    items = pa.table({"locations": locations})
    mapped = []
    for name, table in (("items.arrow", items), ("facts.arrow", facts)):
        with pa.ipc.new_file(str(directory / name), table.schema) as out:
            out.write_table(table)
        mapped.append(pa.ipc.open_file(pa.memory_map(str(directory / name))).read_all())
    return Tables(
        *mapped,
        info=SimpleNamespace(sources={"a": count}),
        companions=pa.Table.from_batches([], COMPANION_COLUMNS),
    )


def milliseconds(call: object) -> float:
    """Return the median time of a few calls, after one that does not count."""
    times = []
    for _ in range(1 + TRIES):
        started = time.perf_counter()
        call()  # type: ignore[operator]
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[1:]))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    count = parser.parse_args().items
    with tempfile.TemporaryDirectory() as directory:
        build = made_up(count, Path(directory))
        print(f"| filter | items that pass of {count:,} | ms |\n|---|---:|---:|")
        for name, asked in QUERIES.items():
            query = Query.of(asked)
            flags = passing(build, query)  # type: ignore[arg-type]
            taken = milliseconds(lambda query=query: passing(build, query))
            print(f"| {name} | {int(flags.sum()):,} | {taken:.1f} |")
        numbers = np.arange(len(build))
        taken = milliseconds(lambda: in_order(build, numbers, "newest"))  # type: ignore[arg-type]
        print(f"| everything, newest first | {count:,} | {taken:.1f} |")
        taken = milliseconds(lambda: vocabulary_of(build))  # type: ignore[arg-type]
        print(f"| the words of the collection, once | | {taken:.1f} |")
        vocabulary = vocabulary_of(build)  # type: ignore[arg-type]
        words = Query(text="dogs in Lisbon in summer 2019")
        taken = milliseconds(lambda: understand(words, vocabulary))
        print(f"| reading the words of a query | | {taken:.3f} |")


if __name__ == "__main__":
    main()
