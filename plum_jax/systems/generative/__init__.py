"""Generative retrieval after PLUM: a decoder that writes the Semantic ID of the next item."""
