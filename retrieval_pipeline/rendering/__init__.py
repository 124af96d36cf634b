"""HTML pages, contact sheets, and pictures in a terminal.

The folders above say what is shown; the pages of the web server are in `web`.
"""
