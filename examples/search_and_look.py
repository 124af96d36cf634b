"""Search from Python, and look at the hits: in Jupyter as pictures, else as a page.

    python examples/search_and_look.py "a cup of coffee"

Run it where `retrieval query` works; `cd retrieval-demo` after `retrieval demo` is such a place.
"""

import sys
from pathlib import Path

from retrieval_pipeline import Query, Searcher, load_settings

searcher = Searcher.open(load_settings())

text = " ".join(sys.argv[1:]) or "a cup of coffee"
answer = searcher.answer(Query(text=text), k=6)
print(f"{text}: {answer.verdict}")
for hit in answer.hits:
    print(f"{hit.relevance:5.0%}  {hit.path}")

# More like the best one, away from something.
best = answer.hits[0].content_id
for hit in searcher.search(Query(like=(best,), minus=("people",)), k=3):
    print(f"like it: {hit.path.name}, {hit.width} x {hit.height}")

# In a notebook, `answer` as the last line of a cell shows the pictures. It is this HTML:
page = Path("hits.html")
page.write_text(answer._repr_html_(), encoding="utf-8")
print(f"look at {page.absolute()}")
