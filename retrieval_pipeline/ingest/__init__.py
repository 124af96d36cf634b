"""From a directory to a manifest to embeddings, on this machine or on a Ray cluster.

Opening pictures belongs to `images`, computing vectors to `encoders`, the tables to `storage`.
"""
