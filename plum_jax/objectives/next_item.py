"""The next item twice from one state: written code by code, and scored against drawn items (LIGER, 2411.18814)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from plum_jax.model.item_history import ItemHistoryNetwork, Items
from plum_jax.model.masks import PackedCausal
from plum_jax.model.repeats import last_occurrences
from plum_jax.objectives.kernels import attention_on
from plum_jax.objectives.seen_items import with_seen, without_seen

Sums = tuple[jax.Array, jax.Array, dict[str, tuple[jax.Array, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class NextItem:
    """Cross-entropy of the next item's Semantic ID, and of the item itself by a softmax over drawn items.

    The batch has the columns of packed rows, "input_fields" (buckets [B, T, F] of the events that are read), and for
    the items of inputs, targets and draws "input_codes", "input_features", "input_known", "target_codes"...
    (`model.item_history.Items`).

    Attributes:
      generative_weight: of -log p of the codes, summed over levels.
      dense_weight: of -log p of the item among the target and the batch's draws, which stand for all items that are
        learnt (sampled softmax with the logQ correction of uniform draws).
      label_smoothing: of the codes of each level.
      generative_share: of the positions of each row, drawn anew each step, whose codes are trained; the others stand
        behind them (the sum is scaled up). What a depth decoder costs falls with it.
    """

    generative_weight: float = 1.0
    dense_weight: float = 1.0
    label_smoothing: float = 0.0
    generative_share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.generative_share <= 1:
            raise ValueError(
                f"expected a generative_share above 0 and of at most 1, got {self.generative_share}; to train no "
                "codes, set generative_weight to 0"
            )

    def on(self, network: ItemHistoryNetwork, mesh: Mesh) -> NextItemLoss:
        """The loss of one network."""
        return NextItemLoss(network.clone(attention=attention_on(mesh)), self)


@dataclasses.dataclass(frozen=True)
class NextItemLoss:
    """`NextItem` of one network."""

    network: ItemHistoryNetwork
    objective: NextItem

    def __call__(self, params: Mapping, batch: Mapping[str, jax.Array], rng: jax.Array | None) -> Sums:
        """Sums of loss and weight over packed rows; `rng` None: no dropout."""
        rngs = None if rng is None else {"dropout": rng}
        apply = _Applied(self.network, params, rngs)
        mask = PackedCausal(batch["decoder_segment_ids"])
        states = apply("states", items_of(batch, "input"), batch["input_fields"], batch["decoder_positions"], mask)
        weights, goal = batch["decoder_loss_weights"], self.objective
        weight, metrics = jnp.sum(weights), {}
        loss = jnp.float32(0)
        if goal.generative_weight:
            chosen, codes, of_chosen = states, batch["target_codes"], weights
            if goal.generative_share < 1 and rng is not None:
                chosen, codes, of_chosen = self._some(rng, states, codes, weights)
            nats, smooth = self._generative(apply, chosen, codes)
            total, stood_for = jnp.sum(nats * of_chosen), jnp.sum(of_chosen)
            smoothed = (1 - goal.label_smoothing) * total + goal.label_smoothing * jnp.sum(smooth * of_chosen)
            loss += goal.generative_weight * smoothed * weight / jnp.maximum(stood_for, 1.0)
            metrics["cross_entropy"] = (total, stood_for)
        if goal.dense_weight:
            dense = jnp.sum(self._dense(apply, states, batch) * weights)
            loss += goal.dense_weight * dense
            metrics["dense_cross_entropy"] = (dense, weight)
        metrics["trained_share"] = (jnp.count_nonzero(weights).astype(jnp.float32), jnp.float32(weights.size))
        return loss, weight, metrics

    def _some(
        self, rng: jax.Array, states: jax.Array, codes: jax.Array, weights: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """States, codes and weights at random positions of each row, of those that count first."""
        count = max(1, round(self.objective.generative_share * weights.shape[1]))
        drawn = jax.random.uniform(jax.random.fold_in(rng, 1), weights.shape) + (weights > 0)
        places = jax.lax.top_k(drawn, count)[1]
        some_states, some_codes = (jnp.take_along_axis(x, places[..., None], axis=1) for x in (states, codes))
        return some_states, some_codes, jnp.take_along_axis(weights, places, axis=1)

    def _generative(self, apply: _Applied, states: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """-log p of the codes `[B, T, L]`, summed over levels, and the same of an even guess; float32 `[B, T]` each."""
        hidden, flat = apply("depth_states", states, codes), codes.reshape(-1, codes.shape[-1])
        nats = smooth = jnp.zeros(len(flat), jnp.float32)
        for level in range(codes.shape[-1]):
            logits = apply.plain("code_logits", hidden[:, level], level)
            normaliser = jax.nn.logsumexp(logits, axis=-1)
            # As a masked sum: its gradient is elementwise, that of a gather is a scatter.
            chosen = flat[:, level, None] == jnp.arange(logits.shape[-1])
            nats += normaliser - jnp.sum(jnp.where(chosen, logits, 0.0), axis=-1)
            smooth += normaliser - jnp.mean(logits, axis=-1)
        return nats.reshape(codes.shape[:2]), smooth.reshape(codes.shape[:2])

    def _dense(self, apply: _Applied, states: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        """-log p of the target item, float32 `[B, T]`."""
        targets = batch["decoder_target_tokens"]
        states = states.astype(jnp.float32)
        wanted = apply("vectors", items_of(batch, "target")).astype(jnp.float32)
        others = apply("vectors", items_of(batch, "drawn")).astype(jnp.float32).reshape(-1, states.shape[-1])
        drawn, log_q = (batch[name].reshape(-1) for name in ("drawn_items", "drawn_log_q"))
        own = jnp.sum(states * wanted, axis=-1)
        # A drawn item stands for 1 / (K q) items (logQ), so that the normaliser is that of all items in expectation.
        scores = jnp.einsum("BTD,KD->BTK", states, others) - log_q - jnp.log(len(drawn))
        scores = jnp.where(drawn == targets[..., None], -jnp.inf, scores)
        normaliser = jax.nn.logsumexp(scores, axis=-1)
        if self.network.config.repeats:
            everything = len(drawn) >= self.network.num_items
            vectors = (
                others[self._places(drawn, log_q, batch)] if everything else apply("vectors", items_of(batch, "input"))
            )
            seen, worth, of_target = self._seen(apply, states, vectors.astype(jnp.float32), batch)
            normaliser = with_seen(normaliser, seen, worth, everything=everything)
            own += of_target
        return jnp.logaddexp(normaliser, own) - own

    def _places(self, drawn: jax.Array, log_q: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        """int32 `[B, S]`, where among all items those of the histories stand."""
        num_items = self.network.num_items
        items = jnp.where(jnp.isfinite(log_q), drawn, num_items)  # what fills the last places up is none
        place = jnp.zeros(num_items, jnp.int32).at[items].set(jnp.arange(len(drawn), dtype=jnp.int32), mode="drop")
        return place[batch["decoder_input_tokens"]]

    def _seen(
        self, apply: _Applied, states: jax.Array, vectors: jax.Array, batch: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Scores of the items of each position's history, `[B, T, S]` (very small where s is none, or the target), what
        it is worth that they were seen, `[B, T, S]`, and what that is for the target, `[B, T]`.
        """
        read, targets = batch["decoder_input_tokens"], batch["decoder_target_tokens"]
        last, age = last_occurrences(read, batch["decoder_segment_ids"])
        worth = jnp.take(apply.plain("repeat_worth"), age)
        is_target = read[:, None, :] == targets[..., None]
        scores = without_seen(jnp.einsum("BTD,BSD->BTS", states, vectors), last & ~is_target)
        return scores, worth, jnp.sum(jnp.where(last & is_target, worth, 0.0), axis=-1)


@dataclasses.dataclass(frozen=True)
class _Applied:
    """Methods of the network with parameters and dropout."""

    network: ItemHistoryNetwork
    params: Mapping
    rngs: dict[str, jax.Array] | None

    def __call__(self, method: str, *arguments: object) -> jax.Array:
        found = self.network.apply(
            {"params": self.params}, *arguments, deterministic=self.rngs is None, rngs=self.rngs, method=method
        )
        return jnp.asarray(found)

    def plain(self, method: str, *arguments: object) -> jax.Array:
        """Of a method without dropout."""
        return jnp.asarray(self.network.apply({"params": self.params}, *arguments, method=method))


def items_of(batch: Mapping[str, jax.Array], what: str) -> Items:
    """The columns of "input", "target" or "drawn" items."""
    names = {"input": "decoder_input_tokens", "target": "decoder_target_tokens", "drawn": "drawn_items"}
    return Items(batch[names[what]], *(batch[f"{what}_{name}"] for name in ("known", "codes", "features")))
