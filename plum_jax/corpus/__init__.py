"""Corpus: items and user histories, where they come from, how they are split, and the features of items."""
