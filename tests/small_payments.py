"""A small table of payments with planted attacks, and a trunk that is quick to compile."""

import functools

from plum_jax.corpus.sources.card_payments import CardPayments
from plum_jax.corpus.splits import GappedTime
from plum_jax.model.config import DecoderConfig
from plum_jax.objectives.item_losses import SampledSoftmax
from plum_jax.objectives.next_fields import NextFields
from plum_jax.payments.events import PaymentEvents, Payments
from plum_jax.payments.fields import FieldsConfig
from plum_jax.payments.network import TrunkNetworkConfig
from plum_jax.payments.trunk import Trunk
from plum_jax.training.training_config import TrainingConfig

SIMULATOR = CardPayments(num_cards=40, num_merchants=8, days=40, payments_a_day=1.5, attack_every_days=12)
SPLIT = GappedTime(train_days=20, gap_days=2, validation_days=6, test_days=10)
PAYMENTS = Payments(kind="attack_size", delay_days=2, warm_up_days=2)
LAYERS = DecoderConfig(
    num_layers=2, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=16, dropout_rate=0.1, scan_layers=False
)
NETWORK = TrunkNetworkConfig(LAYERS, window=6)
TRAINING = TrainingConfig(steps=6, checkpoint_period=2, log_period=2, tensorboard=False)
TRUNK = Trunk(
    follow="user",
    fields=FieldsConfig(windows=(600, 86_400, 5 * 86_400), own_rows=6, hashed_rows=2),
    network=NETWORK,
    objective=NextFields(SampledSoftmax(4)),
    training=TRAINING,
    batch_size=8,
    row_length=16,
)


@functools.cache
def payments() -> PaymentEvents:
    """All of them, read once."""
    return PAYMENTS.of(SPLIT.split(SIMULATOR.read()))
