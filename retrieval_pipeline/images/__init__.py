"""Image files: which formats are opened, under which limits, and how they become pixels.

Decode workers import this folder and nothing above it.
"""
