"""Questions to an index that Milvus keeps: `index.MilvusIndex` answers as any `VectorIndex` does.

What is stored there, and how it gets there, is the business of `retrieval_pipeline/index/milvus`.
"""
