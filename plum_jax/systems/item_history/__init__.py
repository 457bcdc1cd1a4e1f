"""Generative retrieval with one position an item, a depth decoder over its Semantic ID, and a dense head beside it."""

from plum_jax.systems.item_history.system import ItemHistory

__all__ = ["ItemHistory"]
