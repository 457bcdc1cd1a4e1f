"""Inputs: blocks are weighed alike, what is missing pulls nowhere, odd features are refused by name."""

import dataclasses

import numpy as np
import pytest

from plum_jax.corpus.features import FeatureBlock, FeatureError, ItemFeatures
from plum_jax.semantic_ids.codec import LinearEncoder
from plum_jax.semantic_ids.inputs import QuantizerError, fit_inputs, imputed_items, with_mean_squared_length


def one_block(values: np.ndarray, present: np.ndarray | None = None) -> ItemFeatures:
    present = np.ones(len(values), bool) if present is None else present
    return ItemFeatures((FeatureBlock("text", values.astype(np.float32), present),))


def test_items_without_a_block_get_its_mean_and_are_counted(features):
    inputs = fit_inputs(features)
    assert imputed_items(inputs, features) == {"text": 0, "behaviour": 7}
    (text, _), (behaviour, present) = (block_input(features) for block_input in inputs)
    assert not behaviour[:7].any()
    assert present.tolist() == [False] * 7 + [True] * 113
    np.testing.assert_allclose(behaviour[7:].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(text + inputs[0].mean, axis=1), 1, atol=1e-6)


def test_weights_choose_and_scale_blocks(features):
    text, behaviour = fit_inputs(features, {"behaviour": 3.0, "text": 0.5})
    assert (text.name, behaviour.name) == ("text", "behaviour")
    np.testing.assert_allclose(np.linalg.norm(behaviour(features)[0][7:] + 3 * behaviour.mean, axis=1), 3, atol=1e-5)
    (raw,) = fit_inputs(features, {"text": 2.0}, normalise=False)
    values = features.block("text").values
    np.testing.assert_allclose(raw(features)[0], 2 * (values - values.mean(0)), atol=1e-6)


def test_rescaled_inputs_have_the_length_asked_for_times_their_weight(features):
    text, behaviour = with_mean_squared_length(fit_inputs(features, {"text": 1.0, "behaviour": 2.0}), features, 32)
    np.testing.assert_allclose(np.square(text(features)[0]).sum(1).mean(), 32, rtol=1e-5)
    np.testing.assert_allclose(np.square(behaviour(features)[0][7:]).sum(1).mean(), 4 * 32, rtol=1e-5)


def test_new_items_are_read_with_the_statistics_of_the_old(features):
    old, new = features.take(np.arange(100)), features.take(np.arange(100, 120))
    encoder = LinearEncoder(fit_inputs(old))
    np.testing.assert_array_equal(encoder(new), encoder(features)[100:])


@pytest.mark.parametrize(
    ("values", "present", "message"),
    [
        (np.ones((9, 2)), None, "all 9 items have the same features"),
        (np.array([[1, 2], [np.nan, 0]]), None, "'text' has NaN or infinity at item row 1"),
        (np.array([[np.inf, 2], [1, 0]]), None, "'text' has NaN or infinity at item row 0"),
        (np.zeros((3, 2)), np.zeros(3, bool), "no item has feature block 'text'"),
    ],
)
def test_features_that_cannot_be_quantised(values, present, message):
    with pytest.raises(QuantizerError, match=message):
        fit_inputs(one_block(values, present))


def test_wrong_weights_blocks_and_dimensions_say_what_is_expected(features):
    with pytest.raises(FeatureError, match=r"no feature block 'sound'; there are \['text', 'behaviour'\]"):
        fit_inputs(features, {"sound": 1.0})
    with pytest.raises(QuantizerError, match="expected weights above 0"):
        fit_inputs(features, {"text": 0.0})
    (text, _) = fit_inputs(features)
    with pytest.raises(QuantizerError, match="'text' has 5 dimensions, the codebooks were made for 8"):
        text(one_block(np.ones((3, 5))))
    bad = np.ones((3, 8))
    bad[2, 1] = np.nan
    with pytest.raises(QuantizerError, match="NaN or infinity at item row 2, and at 0 more"):
        dataclasses.replace(text)(one_block(bad))
