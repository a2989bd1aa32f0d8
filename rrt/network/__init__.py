"""The reranking transformer and what scores with it."""
