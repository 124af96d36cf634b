"""The settings: their model, the file that they are read from, and the one that `init` writes.

What a setting does is decided in the folders above.
"""
