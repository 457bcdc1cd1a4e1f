"""Items as a mixture of a row of their own and of what is known of them, weighed by how old they are."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.corpus.splits import Split
from plum_jax.model.config import DecoderConfig
from plum_jax.model.projections import parameter

Age = Literal["events", "days"]
ItemMix = Literal["age", "sum"]
AGES = 16  # 0: not in training; then 1, 2 to 3, 4 to 7, ... events, or days
GATE_SCALE = 16.0  # Adam moves a lone number by no more than the learning rate a step


@dataclasses.dataclass(frozen=True, eq=False)
class TrunkItems:
    """What is known of all items: constants of the network, so that a batch names items and nothing else.

    Attributes:
      features: float32 [N, F], of their content; F may be 0.
      ages: int32 [N], in [0, AGES), 0 of items that were not in training (`item_ages`).
    """

    features: np.ndarray
    ages: np.ndarray

    @property
    def in_training(self) -> np.ndarray:
        """bool [N]: the row of another means nothing."""
        return self.ages > 0


def item_ages(split: Split, unit: Age) -> np.ndarray:
    """int32 [N], 1 + floor(log2(age)) of each item at the end of training, at most AGES - 1; 0: not in training.

    Args:
      split: whose training events are counted.
      unit: "events" that the item has in training; "days" from its first one to the last of all, at least one.

    Raises:
      ValueError: another unit, or days where times are not absolute.
    """
    if unit not in get_args(Age):
        raise ValueError(f"expected the age of items in one of {get_args(Age)}, got {unit!r}")
    age = split.item_popularity
    if unit == "days":
        corpus = split.corpus
        if corpus.clock != "absolute":
            raise ValueError(
                f"the age of items in days needs unix times, and the clock of corpus {corpus.name!r} is "
                f"{corpus.clock!r}: take 'events'"
            )
        events = split.training_events()
        item, time = (events[name].to_numpy() for name in ("item", "time"))
        first = np.full(corpus.num_items, time.max(initial=0))
        np.minimum.at(first, item, time)
        age = np.where(age > 0, np.maximum((time.max(initial=0) - first) // 86_400, 1), 0)
    powers = 2 ** np.arange(AGES - 1)
    return np.searchsorted(powers, age, side="right").astype(np.int32)


class ItemVectors(nn.Module):
    """All items, float32 `[N, D]`: how they are read, and what a state is compared with.

    "age": g * own row + (1 - g) * projected features, with g = sigmoid of a learnt number for each age: Netflix mixes
    id and metadata by "an attention on entity age" whose form is not published. A new item is all metadata. "sum": both
    added, the own row left out where the item is new (`model.item_history`). In training `id_dropout` of the items are
    as new.

    Attributes:
      config: of the Transformer that reads them.
      items: what is known.
      mix, id_dropout: see above.
    """

    config: DecoderConfig
    items: TrunkItems
    mix: ItemMix
    id_dropout: float

    def setup(self) -> None:
        c, init = self.config, nn.initializers.normal(0.02)
        shape = (len(self.items.ages), c.d_model)
        self.ids = parameter(self, "ids", init, ("vocab", "embed"), shape, c.param_dtype)
        # Content is as small as a row at first: features are of length one, and what is large is never forgotten.
        wide = self.items.features.shape[1] > 0
        self.features = nn.Dense(c.d_model, use_bias=False, kernel_init=init) if wide else None
        if self.mix == "age":
            self.age_bias = parameter(self, "age_bias", nn.initializers.zeros_init(), ("norm",), (AGES,), "float32")

    def age_shares(self) -> jax.Array:
        """float32 `[AGES]`, what an item's own row has of its vector, by age; 0 of a new item."""
        return jax.nn.sigmoid(GATE_SCALE * self.age_bias).at[0].set(0.0)

    def __call__(self, deterministic: bool = True) -> jax.Array:
        known = jnp.asarray(self.items.in_training)
        if not deterministic and self.id_dropout:
            known &= jax.random.bernoulli(self.make_rng("dropout"), 1 - self.id_dropout, known.shape)
        content = jnp.float32(0) if self.features is None else self.features(jnp.asarray(self.items.features))
        if self.mix == "sum":
            return jnp.where(known[:, None], self.ids, 0.0) + content
        share = jnp.where(known, jnp.take(self.age_shares(), self.items.ages), 0.0)[:, None]
        return share * self.ids + (1 - share) * content
