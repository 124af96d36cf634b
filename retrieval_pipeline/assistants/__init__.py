"""The library as tools of assistants, by the Model Context Protocol (extra `mcp`).

Imports what lies below; only the command line imports this.
"""
