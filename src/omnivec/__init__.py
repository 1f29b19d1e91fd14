"""One self-hosted server for embeddings and reranking; see the README."""

__version__ = "0.1.0"
