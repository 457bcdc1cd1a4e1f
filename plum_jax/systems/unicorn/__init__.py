"""UniCoRn (arXiv 2408.10394): one ranker for search, similar items and the homepage."""

from plum_jax.systems.unicorn.system import Unicorn

__all__ = ["Unicorn"]
