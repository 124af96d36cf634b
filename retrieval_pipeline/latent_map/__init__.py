"""The map: a PCA projection of the embeddings, clusters, and how they are drawn.

The projection that speeds up the search is part of `index`.
"""
