"""Parameters and FLOPs of an item-level network, from its sizes alone."""

from __future__ import annotations

from plum_jax.model.counts import forward_flops_per_token, parameter_counts, train_flops_parts
from plum_jax.model.item_history import ItemHistoryConfig
from plum_jax.model.repeats import AGES
from plum_jax.systems.known import ItemSizes


def item_history_counts(config: ItemHistoryConfig, sizes: ItemSizes) -> dict[str, int]:
    """Parameters by group: "embedding" (codes, items' own rows, fields, repeats, the depth decoder's inputs), "head"
    (its outputs), "non_embedding", "total", and both as activated ones, in the sense of `model.counts`.
    """
    width, depth = config.transformer.d_model, config.depth.d_model
    own = sizes.num_items * width if config.item_ids else 0
    embedding = sizes.num_codes * (width + depth) + own + sum(sizes.field_sizes) * width + AGES * config.repeats
    head = sizes.num_codes * depth
    projections = sizes.feature_dim * width + width * depth
    stacks = [parameter_counts(part, 0) for part in (config.transformer, config.depth)]
    non_embedding = projections + sum(stack["non_embedding"] for stack in stacks)
    activated = projections + sum(stack["activated_non_embedding"] for stack in stacks)
    return {
        "embedding": embedding,
        "head": head,
        "non_embedding": non_embedding,
        "total": embedding + head + non_embedding,
        "activated_non_embedding": activated,
        "activated": embedding + head + activated,
    }


def item_history_flops_parts(
    config: ItemHistoryConfig, sizes: ItemSizes, length: int, *, generative: float, drawn: int, positions: int
) -> dict[str, float]:
    """Training FLOPs of one position of a row by part, as `model.counts.train_flops_parts` counts those of a token.

    Args:
      config, sizes: of the network.
      length: positions of a row, whose causal scores are counted.
      generative: share of the positions whose codes are trained; 0: of none.
      drawn: negatives of a batch that each position is scored against; 0: no dense head is trained.
      positions: of a batch, over which what is done once for each drawn item is shared out.
    """
    width, depth, levels = config.transformer.d_model, config.depth.d_model, len(sizes.codebook_sizes)
    parts = train_flops_parts(config.transformer, 0, (length + 1) / 2)
    vectors = 1 + (1 + drawn / positions if drawn else 0)  # inputs, targets, draws
    parts["projections"] += 3 * 2 * vectors * sizes.feature_dim * width
    # Each position is scored against those of its row too, which may be in its history.
    parts["head"] = 3 * 2 * (1 + drawn + length * config.repeats) * width if drawn else 0.0
    if generative:
        of_depth = train_flops_parts(config.depth, 0, (levels + 1) / 2)
        for name in ("projections", "scores", "router"):
            parts[name] += generative * levels * of_depth[name]
        parts["projections"] += generative * 3 * 2 * width * depth
        parts["head"] += generative * 3 * 2 * sizes.num_codes * depth
    return parts


def item_history_search_flops(config: ItemHistoryConfig, sizes: ItemSizes, history: float, num_beams: int) -> float:
    """Forward FLOPs of one user's beam search: the history once, then a position of every beam for every further level;
    logits where a code is chosen.
    """
    levels = len(sizes.codebook_sizes)
    read = history * forward_flops_per_token(config.transformer, 0, (history + 1) / 2)
    steps = 1 + num_beams * (levels - 1)
    written = steps * (forward_flops_per_token(config.depth, 0, (levels + 1) / 2))
    heads = 2 * config.depth.d_model * (sizes.codebook_sizes[0] + num_beams * sum(sizes.codebook_sizes[1:]))
    return read + 2 * config.transformer.d_model * config.depth.d_model + written + heads
