"""plum_jax: generative recommendation at scale, after PLUM (arXiv 2510.07784)."""
