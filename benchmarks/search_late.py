"""Late interaction: one user's candidates scored with kept segments against the full model; and what tuning trains."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import timing

from plum_jax.model.config import Adapter, DecoderConfig
from plum_jax.systems.m6rec.late import KeptSegments
from plum_jax.systems.m6rec.network import Heads, M6Network
from plum_jax.systems.m6rec.rows import CANDIDATE, CANDIDATE_SEGMENTS, USER, TextRows
from plum_jax.systems.m6rec.serving import Serving
from plum_jax.systems.m6rec.trunk import Form
from plum_jax.systems.m6rec.tuning import Tuning

VOCABULARY, CANDIDATES, BEHAVIOURS = 4000, 16, 8
PROFILE, WHEN, WHAT, OFFER, SPECIAL = 12, 7, 11, (5, 11, 12, 15), 1  # tokens of segments
ONE_LATE_IN = 8  # layers; the paper's best row has 3 late ones of 24
SIZES = {"8 layers, d 128": (8, 128), "24 layers, d 256": (24, 256)}
# M6-base: 24 layers, 16 heads, d 1024, about 300M (the vocabulary is not printed: 50,000 here).
M6_BASE = DecoderConfig(
    num_layers=24, d_model=1024, num_heads=16, num_kv_heads=16, head_dim=64, mlp_dim=2731, scan_layers=False
)
OPTION_ADAPTER = Tuning("option_adapter", soft_prompts=20, adapter=Adapter(rank=32))


def measure(quick: bool) -> dict[str, Any]:
    """ "late_interaction_vs_full_latency": seconds for the candidates of one user whose segments are kept, the last
    eighth of the layers run, over those of the full model; greatest of the sizes. "tuned_parameter_share": what the
    option-adapter trains of M6-base, from shapes alone. Prints a line for each size.
    """
    names = list(SIZES)[:1] if quick else list(SIZES)
    print(
        f"\n{CANDIDATES} candidates of one user with {BEHAVIOURS} behaviours, {one_user().tokens.shape[1]} tokens each"
    )
    ratios = {name: _ratio(name, *SIZES[name], 3 if quick else 7) for name in names}
    share = tuned_share()
    print(f"option-adapter of M6-base: {share:.4f} of the parameters are tuned")
    return {
        "late_interaction_vs_full_latency": max(ratios.values()),
        "late_interaction_by_size": ratios,
        "tuned_parameter_share": share,
    }


def one_user() -> TextRows:
    """A user's rows, one a candidate: the user side is the same in all."""
    random = np.random.default_rng(0)
    user = [SPECIAL, PROFILE, *(WHEN, WHAT) * BEHAVIOURS, SPECIAL]
    offer = [SPECIAL, *OFFER, SPECIAL]
    numbers = [*(CANDIDATE_SEGMENTS + np.arange(len(user))[::-1]), *range(len(offer))]
    segment = np.repeat(numbers, [*user, *offer]).astype(np.int32)
    side = np.repeat([USER, CANDIDATE], [sum(user), sum(offer)]).astype(np.int32)
    tokens = np.tile(random.integers(3, VOCABULARY, len(side)), (CANDIDATES, 1)).astype(np.int32)
    of_items = segment == 2
    tokens[:, of_items & (side == CANDIDATE)] = random.integers(3, VOCABULARY, (CANDIDATES, OFFER[1]))
    return TextRows(tokens, *(np.tile(values, (CANDIDATES, 1)) for values in (side, segment)))


def _ratio(name: str, layers: int, width: int, rounds: int) -> float:
    config = DecoderConfig(
        num_layers=layers,
        d_model=width,
        num_heads=width // 32,
        num_kv_heads=width // 32,
        head_dim=32,
        mlp_dim=int(2.75 * width),
        scan_layers=False,
    )
    rows = one_user()
    full, params = _random(M6Network(config, VOCABULARY), rows)
    split, of_split = _random(M6Network(config, VOCABULARY, Form(late_layers=layers // ONE_LATE_IN)), rows)
    kept = KeptSegments(split, of_split)
    sides: dict[str, Callable[[], object]] = {
        "late": functools.partial(kept.scores, rows, CANDIDATES),
        "full": functools.partial(Serving().scores, full, params, rows, block=CANDIDATES),
    }
    seconds = timing.interleaved(sides, rounds)
    ratio = timing.median_ratio(seconds["late"], seconds["full"])
    late, whole = (1000 * statistics.median(seconds[side]) for side in ("late", "full"))
    print(f"{name:20}{late:>9.1f} ms with kept segments{whole:>9.1f} ms by the full model{ratio:>9.3f}")
    return ratio


def tuned_share() -> float:
    """Of M6-base's parameters."""
    network = M6Network(OPTION_ADAPTER.decoder(M6_BASE), 50_000, heads=OPTION_ADAPTER.heads(Heads()))
    columns = {name: jax.ShapeDtypeStruct((1, 8), np.int32) for name in ("tokens", "side", "segment")}
    shapes = nn.unbox(jax.eval_shape(network.init, jax.random.key(0), columns)["params"])
    total = dataclasses.replace(OPTION_ADAPTER, method="full").tuned_parameters(shapes)
    return OPTION_ADAPTER.tuned_parameters(shapes) / total


def _random(network: M6Network, rows: TextRows) -> tuple[M6Network, Any]:
    batch = dict(rows.of(slice(0, 1)).columns())
    return network, nn.unbox(jax.jit(network.init)(jax.random.key(0), batch)["params"])
