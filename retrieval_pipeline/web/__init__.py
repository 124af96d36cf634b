"""The web server: JSON API, pages, thumbnails, uploads, votes, and the protection of all that.

The command line and Dagster have folders of their own; JSON that others need too stands beside its
dataclass.
"""
