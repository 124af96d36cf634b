"""The vector index: items, builds, and the structures that make nearest neighbours fast to find.

It works on vectors and content ids alone. What a query means and how relevant a hit is belongs to
`search`; how images become vectors belongs to `encoders` and `ingest`.
"""
