"""Image files: which formats are opened, under which limits, and how they become pixels.

Decode workers import this folder and what it imports, nothing else of the package.
"""
