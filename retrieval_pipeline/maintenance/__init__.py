"""Looking after a home: its status, checking and repairing its files, collecting what is unused.

Making and publishing tables and builds is the business of `ingest` and `pipeline`.
"""
