"""Training of the reranking transformer."""
