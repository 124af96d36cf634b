"""From a directory to a manifest to embeddings, on this machine or on a Ray cluster.

Opening pictures is left to `images`, computing vectors to `encoders`.
"""
