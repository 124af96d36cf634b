"""The index in Milvus, a vector database: what is published to it, and how it is reached.

Questions are asked in `search/milvus`.
"""
