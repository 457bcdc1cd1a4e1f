"""Parameters and FLOPs of a decoder, by group, from its configuration alone."""

from __future__ import annotations

from plum_jax.model.config import DecoderConfig


def parameter_counts(config: DecoderConfig, vocab_size: int) -> dict[str, int]:
    """Parameters by group; `embedding` + `head` + `attention` + `mlp` + `adapter` + `gate` + `router` + `norm` =
    `total`.

    Groups are kept apart so that an analysis can follow Kaplan's convention (`non_embedding`) or Chinchilla's
    (`total`). `activated` are those that one token goes through: of the experts only the chosen and the shared ones;
    `activated_non_embedding` leaves out embedding and head, as PLUM's names of its sizes do.
    """
    c = config
    embedding = vocab_size * c.d_model
    qkv_heads = c.num_heads + 2 * c.num_kv_heads
    attention = c.d_model * c.head_dim * (qkv_heads + c.num_heads)
    if c.qkv_bias:
        attention += qkv_heads * c.head_dim
    mlp, activated_mlp, router = 3 * c.d_model * c.mlp_dim, 3 * c.d_model * c.mlp_dim, 0
    if c.moe is not None:
        expert, shared = 3 * c.d_model * c.moe.mlp_dim, 3 * c.d_model * c.moe.shared_mlp_dim
        mlp = c.moe.num_experts * expert + shared
        activated_mlp = c.moe.experts_per_token * expert + shared
        router = c.d_model * c.moe.num_experts
    gate = 2 * c.d_model * (c.d_model + 1) if c.branch_gates else 0
    adapter = 0 if c.adapter is None else 2 * c.d_model * c.adapter.rank + c.adapter.rank + c.d_model
    norm = (4 if c.post_norms else 2) * c.d_model + (2 * c.head_dim if c.qk_norm else 0)
    layers = c.num_layers
    final_norm = c.d_model
    head = 0 if c.tied_embeddings else embedding
    non_embedding = layers * (attention + mlp + adapter + gate + router + norm) + final_norm
    saved = layers * (mlp - activated_mlp)
    return {
        "embedding": embedding,
        "head": head,
        "attention": layers * attention,
        "mlp": layers * mlp,
        "adapter": layers * adapter,
        "gate": layers * gate,
        "router": layers * router,
        "norm": layers * norm + final_norm,
        "non_embedding": non_embedding,
        "total": embedding + head + non_embedding,
        "activated_non_embedding": non_embedding - saved,
        "activated": embedding + head + non_embedding - saved,
    }


def forward_flops_per_token(config: DecoderConfig, vocab_size: int, context: float) -> float:
    """Floating-point operations of one token's forward pass that attends to `context` keys (2 per multiply-add).

    Counts matrix products only: projections, scores and weighted values, router, the experts that a token is sent to,
    head. Embedding look-up is free. In layers with a window a token attends to no more keys than that.
    """
    c = config
    counts = parameter_counts(c, vocab_size)
    mlp = counts["mlp"] - (counts["total"] - counts["activated"])
    bias = c.num_layers * c.head_dim * (c.num_heads + 2 * c.num_kv_heads) if c.qkv_bias else 0
    keys = sum(min(context, c.window) if local else context for local in c.local_layers)
    attention_products = 2 * 2 * c.num_heads * c.head_dim * keys
    gates = counts["gate"] - (2 * c.num_layers * c.d_model if c.branch_gates else 0)  # without their biases
    adapters = 0 if c.adapter is None else c.num_layers * 2 * c.d_model * c.adapter.rank
    products = counts["attention"] - bias + mlp + adapters + gates + counts["router"] + vocab_size * c.d_model
    return 2 * products + attention_products


def train_step_flops(config: DecoderConfig, vocab_size: int, batch: int, length: int, *, causal: bool = False) -> float:
    """Operations of one training step on `[batch, length]`: forward and twice that backward, without what `remat`
    computes again, what a capacity leaves empty or drops, and the optimizer.

    Args:
      config, vocab_size: of the decoder.
      batch, length: of the step.
      causal: count only the scores that a causal mask leaves, (T + 1) / 2 keys a token; else the whole score matrix,
        as kernels that form it compute it, and as most published figures count it (PaLM, arXiv 2204.02311, app. B).
    """
    context = (length + 1) / 2 if causal else length
    return 3 * batch * length * forward_flops_per_token(config, vocab_size, context)


def train_flops_parts(config: DecoderConfig, vocab_size: int, context: float) -> dict[str, float]:
    """Training FLOPs of one token by part: "projections" (with the experts), "scores", "router", "head"; they sum up to
    three times `forward_flops_per_token`.
    """
    forward = forward_flops_per_token(config, vocab_size, context)
    head = 2.0 * vocab_size * config.d_model
    router = 2.0 * parameter_counts(config, vocab_size)["router"]
    scores = forward - forward_flops_per_token(config, vocab_size, 0.0)
    parts = {"projections": forward - head - router - scores, "scores": scores, "router": router, "head": head}
    return {name: 3 * flops for name, flops in parts.items()}


def search_flops(config: DecoderConfig, vocab_size: int, prompt_length: int, num_beams: int, num_levels: int) -> float:
    """Operations that a user's beam search needs: the prompt (with its start token) once, then a token of every beam
    for every level but the last; logits where a code is chosen. Scores are those that the mask leaves; of the prompt's
    tokens but the last one, the last layer's keys and values alone.
    """
    c = config
    head = 2 * vocab_size * c.d_model
    prompt = prompt_length + 1
    layer, last_layer = (
        (forward_flops_per_token(c, vocab_size, context) - head) / c.num_layers
        for context in ((prompt + 1) / 2, prompt)
    )
    keys_and_values = 2 * 2 * c.d_model * c.num_kv_heads * c.head_dim
    reading = prompt * (layer * (c.num_layers - 1) + keys_and_values) + last_layer + head
    beams = sum(forward_flops_per_token(c, vocab_size, prompt + level) for level in range(1, num_levels))
    return reading + num_beams * beams
