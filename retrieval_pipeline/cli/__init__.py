"""The `retrieval` command: its subcommands, and what they print, draw and ask in a terminal.

What is searched, indexed or checked is decided in the folders below; Dagster and the web server
have their own folders, `orchestration` and `web`.
"""
