"""The vector index: items, nearest neighbours, Annoy's trees, quantisation, tuning, builds.

It knows neither texts nor pictures; what a query means is decided in `search`.
"""
