"""`transformers` itself loads what we export, and computes our logits; skipped where it is not installed."""

import numpy as np
import pytest
from published_families import CASES, our_logits, write_case

from plum_jax.interop.pretrained import export_hugging_face, read_pretrained

pytest.importorskip("torch")
pytest.importorskip("transformers", reason="transformers is not installed: pip install 'plum_jax[bench]'")


@pytest.fixture(scope="module")
def transformers_logits():
    from make_expected import transformers_logits

    return transformers_logits


@pytest.mark.parametrize("case", CASES)
def test_transformers_computes_our_logits_of_what_it_saved_and_of_what_we_export(case, tmp_path, transformers_logits):
    read = read_pretrained(write_case(case, tmp_path / "theirs"))
    ours = our_logits(read.config, read.params)
    np.testing.assert_allclose(ours, transformers_logits(tmp_path / "theirs"), atol=1e-4, rtol=1e-5)
    export_hugging_face(tmp_path / "exported", read.config, read.params, max_length=64)
    np.testing.assert_allclose(ours, transformers_logits(tmp_path / "exported"), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"layer_windows": (0, 4)}, {"post_norms": True, "query_scale": 0.3}])
def test_transformers_computes_the_logits_of_decoders_that_are_no_family_s(changes, tmp_path, transformers_logits):
    import dataclasses

    from test_export import SMALL, random_params

    config = dataclasses.replace(SMALL, **changes)
    params = random_params(config)
    export_hugging_face(tmp_path / "exported", config, params)
    np.testing.assert_allclose(
        our_logits(config, params), transformers_logits(tmp_path / "exported"), atol=1e-4, rtol=1e-5
    )


def test_transformers_computes_our_states_of_a_bert(tmp_path):
    import small_bert
    import torch
    import transformers

    from plum_jax.interop.bert import read_bert
    from plum_jax.model.bert import Bert

    read = read_bert(small_bert.write(tmp_path))
    theirs = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    tokens, lengths, first = np.array([[2, 5, 6, 3, 8, 3], [2, 8, 3, 5, 3, 0]]), np.array([6, 5]), np.array([4, 3])
    places = np.arange(6)
    with torch.no_grad():
        expected = theirs(
            torch.tensor(tokens),
            attention_mask=torch.tensor(places < lengths[:, None]).long(),
            token_type_ids=torch.tensor(places >= first[:, None]).long(),
        ).last_hidden_state.numpy()
    ours = Bert(read.config, read.vocab_size).apply({"params": read.params}, tokens, lengths, first)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(ours[row, :length], expected[row, :length], atol=2e-5)
