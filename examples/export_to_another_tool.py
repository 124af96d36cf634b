"""Hand pictures on: as an Arrow table in memory, and as Parquet for pandas, polars, DuckDB, ...

    python examples/export_to_another_tool.py

docs/export.md says what each column holds.
"""

import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval_pipeline import Query, Searcher, load_settings, picture_table

searcher = Searcher.open(load_settings())

table = picture_table(searcher)
print(f"{len(table):,} pictures, {len(table.schema)} columns")
print(f"widths: {pc.min(table['width'])} to {pc.max(table['width'])} pixels")
for field in table.schema:
    print(f"  {field.name}: {field.metadata[b'description'].decode()}")

# Only the hits of a query, the best first. `.to_pandas()` makes a data frame.
hits = picture_table(searcher, Query(text="a flower"), most=5, vectors=False)
print(hits.select(["rank", "relevance", "path"]).to_pylist())

pq.write_table(table, "pictures.parquet")
