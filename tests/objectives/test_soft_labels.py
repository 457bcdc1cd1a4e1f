"""Distillation: hard and soft labels by their formulas, and what counts where one of them is missing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.objectives.soft_labels import OfClasses, SoftLabels


class Given(NamedTuple):
    """A network whose parameters are its logits."""

    def apply(self, variables, batch, deterministic, rngs):
        return variables["params"]


RANDOM = np.random.default_rng(0)
LOGITS, TEACHER = RANDOM.normal(size=(2, 5, 4)).astype(np.float32)
LABEL = np.array([0, 3, -1, 1, -1], np.int32)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def loss(objective, **batch):
    return OfClasses(Given(), objective)(LOGITS, {"label": LABEL, **batch}, None)


def test_the_loss_is_cross_entropy_of_labels_and_divergence_from_the_teacher():
    chosen = -np.log(softmax(LOGITS)[np.arange(5), LABEL])[LABEL >= 0]
    for temperature in (1.0, 2.0):
        found, weight, metrics = loss(SoftLabels(temperature, hard=0.5, soft=2.0), teacher=TEACHER)
        of_teacher, of_student = softmax(TEACHER / temperature), softmax(LOGITS / temperature)
        divergence = (of_teacher * np.log(of_teacher / of_student))[LABEL < 0].sum()
        assert weight == 5
        np.testing.assert_allclose(found, 0.5 * chosen.sum() + 2 * temperature**2 * divergence, rtol=1e-5)
        np.testing.assert_allclose(metrics["divergence"], (divergence, 2), rtol=1e-4)
        assert metrics["accuracy"] == ((LOGITS.argmax(1) == LABEL).sum(), 3)
    alone, _, metrics = loss(SoftLabels())
    np.testing.assert_allclose(alone, chosen.sum(), rtol=1e-6)
    assert "divergence" not in metrics


def test_a_student_that_says_what_its_teacher_says_learns_nothing_of_it():
    batch = {"label": LABEL, "teacher": jnp.asarray(LOGITS)}
    gradient = jax.grad(lambda logits: OfClasses(Given(), SoftLabels(hard=0.0))(logits, batch, None)[0])
    np.testing.assert_allclose(gradient(jnp.asarray(LOGITS)), np.zeros_like(LOGITS), atol=1e-6)
    other = np.abs(gradient(jnp.asarray(TEACHER))).max(axis=1)
    assert (other[LABEL < 0] > 0.01).all() and not other[LABEL >= 0].any()


def test_a_temperature_of_nothing_and_negative_weights_are_errors():
    for wrong in ({"temperature": 0.0}, {"soft": -1.0}):
        with pytest.raises(ValueError, match="expected a positive temperature and weights of at least 0"):
            SoftLabels(**wrong)
