"""The values of items that are counted: sources, folders, years, places, cameras and formats."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.vectors import Flags, Numbers

# The values of a kind, and the number of each item's; -1 if unknown.
Coded = tuple[list[str], Numbers]

# Those of facts; the others are known of each item.
OF_FACTS = ("year", "place", "camera", "lens")


def values_of_items(items: pa.Table, facts: pa.Table | None) -> Mapping[str, Coded]:
    """Return the values of items by kind: "source", "folder", "format" and those of OF_FACTS.

    Source and folder are those of the first file; "" is the folder of a file that lies in none. A
    place is a town with its country, "Lisbon, PT".

    Args:
        items: With the columns of `items.ITEM_COLUMNS`.
        facts: With those of `facts_table.FACTS_COLUMNS`, a row an item; None knows none.
    """
    firsts = [pc.list_element(chunk, 0) for chunk in items["locations"].chunks]
    sources = pa.chunked_array([each.field("source") for each in firsts], pa.string())
    paths = pa.chunked_array([each.field("path") for each in firsts], pa.string())
    found = {
        "source": _encoded(sources),
        "folder": _encoded(pc.replace_substring_regex(paths, "/?[^/]*$", "")),
        "format": _encoded(items["format"]),
    }
    if facts is None:
        return found | dict.fromkeys(OF_FACTS, ([], np.full(len(items), -1)))
    towns = pc.binary_join_element_wise(
        facts["place"].cast(pa.string()), facts["country"].cast(pa.string()), ", "
    )
    taken = facts["taken_at"]
    years = pc.fill_null(taken, 0).to_numpy().astype("datetime64[us]").astype("datetime64[Y]")
    named = pa.array(years.astype(str).tolist(), pa.string(), mask=pc.is_null(taken).to_numpy())
    return found | {
        "year": _encoded(pa.chunked_array([named])),
        "place": _encoded(towns),
        "camera": _encoded(facts["camera"].cast(pa.string())),
        "lens": _encoded(facts["lens"].cast(pa.string())),
    }


def counted(coded: Coded, flags: Flags | None = None) -> Counter[str]:
    """Return how many items have each value; unknown ones are left out.

    Args:
        coded: The values of a kind.
        flags: Which items count, bool (items,); None for all.
    """
    values, codes = coded
    chosen = codes if flags is None else codes[flags]
    counts = np.bincount(chosen[chosen >= 0], minlength=len(values)).tolist()
    return Counter({value: n for value, n in zip(values, counts, strict=True) if n})


def _encoded(column: pa.ChunkedArray) -> Coded:
    """Return the values of a column of text, and the number of each row's; -1 for null."""
    encoded = one_chunk(column).dictionary_encode()
    codes: Numbers = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return encoded.dictionary.to_pylist(), codes
