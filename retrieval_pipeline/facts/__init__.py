"""Facts of photographs: when, where and with what they were taken, from headers, sidecars, names.

Which files are read, and when, is decided in `ingest`; columns for queries are made in `index`.
"""
