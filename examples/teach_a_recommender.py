"""Teach a recommender from a program, and take what it recommends.

    python examples/teach_a_recommender.py

Votes belong to the content of pictures: they are kept under `home`, and survive every new index.
"""

from retrieval_pipeline import Query, Recommender, Searcher, load_settings

searcher = Searcher.open(load_settings())
recommender = Recommender(searcher, "example")

# A person would vote; here, everything in the order of the names does: every other one is liked.
everything = searcher.search(Query(sort="name"), k=8)
recommender.add([(hit.content_id, number % 2 == 0) for number, hit in enumerate(everything)])
print(recommender.votes_text)

for candidate in recommender.ranking(3):
    print(f"recommended: {candidate.path}")
