"""RQ-VAE: encoders, a residual quantiser trained with them, and decoders. SID-v1 and SID-v2 are gin files of it."""

from plum_jax.semantic_ids.rqvae.quantizer import RqVae

__all__ = ["RqVae"]
