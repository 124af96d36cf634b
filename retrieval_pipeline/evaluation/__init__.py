"""How well queries are answered: labelled queries, metrics, and their report.

Answering queries is in `search`; this room only asks and counts.
"""
