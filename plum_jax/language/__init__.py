"""A trained decoder as a language model: prompts of words and Semantic IDs, what follows them, and how true it is."""
