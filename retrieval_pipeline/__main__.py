"""`python -m retrieval_pipeline` is `retrieval`."""

from retrieval_pipeline.cli.main import main

main()
