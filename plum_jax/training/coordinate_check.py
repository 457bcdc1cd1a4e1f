"""The coordinate check of muP (arXiv 2203.03466, §D.1): how the change of every activation grows with the width.

python -m plum_jax.training.coordinate_check
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.model.layers import DecoderLayer
from plum_jax.model.masks import packed_causal_mask
from plum_jax.training.optimizer import Adafactor, AdamW, Muon, Optimizer
from plum_jax.training.schedules import Constant
from plum_jax.training.width_transfer import WidthTransfer, transferable

BASE = DecoderConfig(num_layers=2, d_model=32, num_heads=2, num_kv_heads=1, head_dim=16, mlp_dim=64, scan_layers=False)
VOCAB, ROWS, LENGTH = 32, 8, 16


def activation_changes(config: DecoderConfig, optimizer: Optimizer, steps: int, seed: int = 0) -> dict[str, float]:
    """Root mean square by which `steps` steps change each layer's output and the logits of one random batch."""
    decoder = Decoder(config, VOCAB)
    transformation = optimizer.build(steps)
    key, data_key = jax.random.split(jax.random.key(seed))
    tokens = jax.random.randint(data_key, (ROWS, LENGTH + 1), 0, VOCAB)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    positions = jnp.tile(jnp.arange(LENGTH), (ROWS, 1))
    mask = packed_causal_mask(jnp.ones_like(inputs))

    def forward(params: Mapping) -> tuple[jax.Array, dict[str, jax.Array]]:
        output, captured = decoder.apply(
            {"params": params}, inputs, positions, mask, capture_intermediates=_is_layer, mutable="intermediates"
        )
        layers = captured["intermediates"]["transformer"]
        activations = {name: jax.tree.leaves(layers[name])[0] for name in sorted(layers)}
        loss = optax.softmax_cross_entropy_with_integer_labels(output.values, targets).mean()
        return loss, {**activations, "logits": output.values}

    @jax.jit
    def changes(key: jax.Array) -> dict[str, jax.Array]:
        def step(carry: tuple, _: None) -> tuple[tuple, dict[str, jax.Array]]:
            params, state = carry
            gradients, activations = jax.grad(forward, has_aux=True)(params)
            updates, state = transformation.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), activations

        params = nn.unbox(decoder.init(key, inputs, positions, mask)["params"])
        _, activations = jax.lax.scan(step, (params, transformation.init(params)), length=steps + 1)
        return jax.tree.map(lambda x: jnp.sqrt(jnp.mean(jnp.square(x[-1] - x[0]))), activations)

    return {name: float(change) for name, change in changes(key).items()}


def slopes(optimizer: Optimizer, widths: Sequence[int], steps: int = 3) -> dict[str, float]:
    """Slope of log change against log width for each activation: 0 where a learning rate transfers.

    Widths are multiples of `BASE`'s; the optimizer's `width_transfer`, or None for one rate at every width, decides
    whether the logits are scaled too.
    """
    changes = []
    for width in widths:
        config = _of_width(width)
        if optimizer.width_transfer:
            config = transferable(config, optimizer.width_transfer.base_d_model)
        changes.append(activation_changes(config, optimizer, steps))
    logs = np.log(widths)
    return {name: float(np.polyfit(logs, np.log([row[name] for row in changes]), 1)[0]) for name in changes[0]}


def _of_width(width: int) -> DecoderConfig:
    times = width // BASE.d_model
    return dataclasses.replace(
        BASE,
        d_model=width,
        num_heads=BASE.num_heads * times,
        num_kv_heads=BASE.num_kv_heads * times,
        mlp_dim=BASE.mlp_dim * times,
    )


def _is_layer(module: nn.Module, method: str) -> bool:
    return isinstance(module, DecoderLayer) and method == "__call__"


def main() -> None:
    """Prints the slopes of each optimizer, with one rate for all widths and with `WidthTransfer`."""
    widths = [32, 64, 128, 256]
    for optimizer in (AdamW(Constant(3e-3)), Muon(Constant(3e-3)), Adafactor(Constant(3e-2))):
        for transfer in (None, WidthTransfer(32)):
            found = slopes(dataclasses.replace(optimizer, width_transfer=transfer), widths)
            name = f"{type(optimizer).__name__}, {'width transfer' if transfer else 'one rate'}"
            print(f"{name:26}", "  ".join(f"{key} {value:+.2f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
