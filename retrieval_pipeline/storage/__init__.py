"""Files under `home`, local or remote: where each lies, and how it is written whole.

What the tables mean is known to the folders above.
"""
