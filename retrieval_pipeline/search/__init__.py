"""Answering queries: from words and pictures to vectors, hits, relevance and near-duplicates.

Finding the nearest vectors is the business of `index`; making vectors that of `encoders`.
"""
