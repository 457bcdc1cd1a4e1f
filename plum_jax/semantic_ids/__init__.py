"""Semantic IDs: quantisers, collision policies, the SidTable, its quality."""
