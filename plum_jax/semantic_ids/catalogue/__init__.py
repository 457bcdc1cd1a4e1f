"""The living catalogue: Semantic IDs for items that came after the codebooks."""
