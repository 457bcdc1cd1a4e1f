"""Learning rates that hold for every width: muP for our decoder, so that a small one finds the rate of a large one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import optax

from plum_jax.model.config import DecoderConfig
from plum_jax.training.parameter_roles import Kind, map_with_path, role_of

# The update of a parameter of width D is multiplied by (base / D) ** exponent. Why (docs/training.md has it longer):
# an update must change every activation by O(1), and D terms that the gradient has aligned add up to D, not sqrt(D).
# - Adam's entries are O(rate): a matrix that reads D needs 1/D (arXiv 2203.03466, table 3). A table is multiplied by
#   sqrt(D) on the way in, and by D * logits_scale ~ sqrt(D) on the way out: 1/sqrt(D) is right for both.
# - Adafactor's entries are O(rate * RMS of the parameter), and initialisation has put 1/sqrt(D) there already.
# - Muon's have singular values of rate * sqrt(max(in, out)); sqrt(out / in) is wanted (arXiv 2310.17813).
Exponents = Mapping[Kind, float]
ADAM: Exponents = {"heads": 1.0, "hidden": 1.0, "router": 1.0, "table": 0.5, "vector": 0.0}
ADAFACTOR: Exponents = {"heads": 0.5, "hidden": 0.5, "router": 0.5, "table": 0.0, "vector": 0.0}
MUON: Exponents = {"heads": 1.0, "hidden": 0.5, "router": 1.0, "table": 0.5, "vector": 0.0}


@dataclasses.dataclass(frozen=True)
class WidthTransfer:
    """Maximal-update learning rates (Tensor Programs V, arXiv 2203.03466), relative to a decoder of `base_d_model`.

    At the base width nothing changes. For wider ones heads and MLP are to grow in proportion, head_dim and the number
    of layers are to stay, embeddings are scaled (`DecoderConfig.scale_embeddings`), and the logits are multiplied by
    sqrt(base / D): `transferable` sees to the last two. Weight decay is not scaled with the rate, so that it pulls as
    hard at every width (arXiv 2405.13698).
    """

    base_d_model: int

    def scale(self, exponents: Exponents) -> optax.GradientTransformation:
        """Multiplies updates by their parameters' (base / D) ** exponent."""

        def scaled(path: str, update: Any) -> Any:
            role = role_of(path)
            if role is None or role.kind not in exponents:
                raise ValueError(f"WidthTransfer is for decoders, and {path} is not a parameter of one")
            if role.width_axis is None or not exponents[role.kind]:
                return update
            return update * (self.base_d_model / update.shape[role.width_axis]) ** exponents[role.kind]

        return optax.stateless(lambda updates, _: map_with_path(scaled, updates))


def transferable(config: DecoderConfig, base_d_model: int) -> DecoderConfig:
    """`config` with the logits' multiplier that `WidthTransfer(base_d_model)` presupposes.

    Raises:
      ValueError: its embeddings are not scaled.
    """
    if not config.scale_embeddings:
        raise ValueError("expected scale_embeddings=True: without it, the rate of the embedding does not transfer")
    return dataclasses.replace(config, logits_scale=(base_d_model / config.d_model) ** 0.5)
