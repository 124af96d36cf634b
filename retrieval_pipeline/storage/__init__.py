"""The files under `home`, local or remote: their paths, their schemas, and atomic writing.

What the rows of a table mean, and when a table is written, is decided in the folders above.
"""
