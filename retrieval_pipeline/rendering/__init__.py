"""HTML pages, contact sheets and pictures in a terminal, for whoever has something to show.

What is shown comes from the folders above; the web server's own pages are in `web`.
"""
