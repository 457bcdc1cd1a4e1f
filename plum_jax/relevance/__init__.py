"""Relevance of items to search queries: a large cross-encoder that teaches cheap students (Pinterest, 2410.17152)."""
