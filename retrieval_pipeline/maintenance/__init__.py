"""Looking after a home: its status, checking and repairing its files, removing unused ones.

Tables and builds are made and published in `ingest` and `pipeline`.
"""
