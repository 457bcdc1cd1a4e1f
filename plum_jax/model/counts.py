"""Parameters and FLOPs of a decoder, by group, from its configuration alone."""

from __future__ import annotations

from plum_jax.model.config import DecoderConfig


def parameter_counts(config: DecoderConfig, vocab_size: int) -> dict[str, int]:
    """Parameters by group; `embedding` + `head` + `attention` + `mlp` + `norm` = `total`.

    Groups are kept apart so that an analysis can follow Kaplan's convention (`non_embedding`) or Chinchilla's
    (`total`).
    """
    c = config
    embedding = vocab_size * c.d_model
    attention = c.num_layers * c.d_model * c.head_dim * (2 * c.num_heads + 2 * c.num_kv_heads)
    mlp = c.num_layers * 3 * c.d_model * c.mlp_dim
    norm = (2 * c.num_layers + 1) * c.d_model
    head = 0 if c.tied_embeddings else embedding
    return {
        "embedding": embedding,
        "head": head,
        "attention": attention,
        "mlp": mlp,
        "norm": norm,
        "non_embedding": attention + mlp + norm,
        "total": embedding + head + attention + mlp + norm,
    }


def forward_flops_per_token(config: DecoderConfig, vocab_size: int, context: int) -> int:
    """Floating-point operations of one token's forward pass that attends to `context` keys (2 per multiply-add).

    Counts matrix products only: projections, scores and weighted values, MLP, head. Embedding look-up is free.
    """
    c = config
    counts = parameter_counts(c, vocab_size)
    attention_products = c.num_layers * 2 * 2 * c.num_heads * c.head_dim * context
    return 2 * (counts["attention"] + counts["mlp"] + vocab_size * c.d_model) + attention_products


def train_step_flops(config: DecoderConfig, vocab_size: int, batch: int, length: int) -> int:
    """Operations of one training step on `[batch, length]`: forward and twice that backward, the whole score matrix
    (masked half included, since it is computed), recomputation under `remat` not counted."""
    return 3 * batch * length * forward_flops_per_token(config, vocab_size, length)
