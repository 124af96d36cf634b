"""Natural-language image retrieval as a data pipeline."""

__version__ = "0.1.0"
