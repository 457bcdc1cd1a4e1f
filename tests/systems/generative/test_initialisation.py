"""A run that begins with a pre-trained model: its sizes, its tokenizer, its weights, and rows for the new tokens."""

import dataclasses
import json
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gin import config as gin
from plum_jax import run
from plum_jax.corpus.features import CoWatchEmbedding
from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.interop.pretrained import export_hugging_face, read_pretrained
from plum_jax.model.config import DecoderConfig, MixtureOfExperts
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.next_token import NextToken
from plum_jax.semantic_ids.random_ids import RandomIds
from plum_jax.stages import Data
from plum_jax.systems.generative import phase as training_phase
from plum_jax.systems.generative import pipeline
from plum_jax.systems.generative.initialisation import Initialisation, item_text_sources
from plum_jax.systems.generative.phase import Phase
from plum_jax.training.step import FromHost

ROWS = 300  # of the model's table; its tokenizer has 258 pieces
LLAMA = DecoderConfig(
    num_layers=2, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24, scale_embeddings=False
)


def small_language_model(directory, seed: int):
    """A random Llama with a byte-level tokenizer, as a Hugging Face directory."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    tokens = jnp.zeros((1, 1), jnp.int32)
    made = Decoder(LLAMA, ROWS).init(jax.random.key(seed), tokens, tokens, jnp.ones((1, 1, 1), bool))
    files = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps({"eos_token": "<|im_end|>"}).encode(),
    }
    export_hugging_face(directory, LLAMA, nn.unbox(made)["params"], tokenizer_files=files)
    return str(directory)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    return small_language_model(tmp_path_factory.mktemp("models") / "llama", 0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


def make_stages(shared, directory, initialisation: Initialisation, **decoder) -> pipeline.GenerativeStages:
    phase = Phase(length=256)
    config = pipeline.Pipeline(
        data=Data(
            source=Simulator(num_users=12, num_items=8, mean_history=6, branching=(2, 2)),
            splitter=LeaveOneOut(),
            feature_builders=[CoWatchEmbedding()],
            quantizer=RandomIds((4, 4)),
            collision_policy="extra_digit",
        ),
        decoder=DecoderConfig(dropout_rate=0.1, remat="full", **decoder),
        initialisation=initialisation,
        cpt=phase,
        retrieval=phase,
    )
    return pipeline.GenerativeStages(config, directory, config.data.stages(shared))


@pytest.fixture(scope="module")
def stages(llama, shared, tmp_path_factory) -> pipeline.GenerativeStages:
    return make_stages(shared, tmp_path_factory.mktemp("run"), Initialisation(llama))


def test_the_run_takes_sizes_tokenizer_and_weights(stages, llama):
    model = read_pretrained(llama)
    assert stages.decoder.config == dataclasses.replace(model.config, dropout_rate=0.1, remat="full")
    assert stages.config.initialisation.decoder_config(stages.config.decoder) == stages.decoder.config
    words = stages.vocabulary
    assert words.num_pieces == ROWS and words.eos_id == 257 and words.token_name(258) == "<reserved 258>"
    assert words.sid_offset == ROWS + len(words.control_tokens)
    np.testing.assert_array_equal(stages.first_params["embedding"][:ROWS], model.params["embedding"])
    assert stages.first_params["embedding"].shape == (words.vocab_size, LLAMA.d_model)


@pytest.fixture
def handed_over(monkeypatch):
    """Instead of training: what the trainer gets."""
    monkeypatch.setattr(training_phase.trainer, "train", lambda phase, **everything: everything)


def test_training_begins_there_with_and_without_cpt(stages, shared, tmp_path, handed_over):
    for name in ("cpt_params", "params_without_cpt"):
        handed = getattr(
            pipeline.GenerativeStages(stages.config, stages.directory, stages.config.data.stages(shared)), name
        )
        assert isinstance(handed["init_params"], FromHost)
        assert handed["feed"].start_token == stages.vocabulary.start_id == 257
        begun = nn.unbox(handed["init_params"].make(jax.random.key(0)))
        jax.tree.map(np.testing.assert_array_equal, begun, stages.first_params)
        # Other weights are another run: a directory that was trained from these is refused.
        other = Initialisation(small_language_model(tmp_path / name, 1))
        of_other = getattr(make_stages(shared, stages.directory, other), name)["fingerprints"]
        assert {key for key, value in handed["fingerprints"].items() if of_other[key] != value} == {"warm_start"}


def test_random_weights_leave_sizes_and_tokenizer(stages, shared, llama, tmp_path):
    """PLUM's Table 5: the start alone differs."""
    random = make_stages(shared, tmp_path, Initialisation(llama, weights=False))
    assert random.decoder == stages.decoder and random.vocabulary.fingerprint == stages.vocabulary.fingerprint
    assert random.first_params is None and random.first_fingerprint == "none" != stages.first_fingerprint


def test_text_is_predicted_as_by_the_pretrained_model(stages, llama):
    ids = jnp.array([stages.vocabulary.encode("once upon a time")])
    model = read_pretrained(llama)
    np.testing.assert_allclose(
        _logits(stages.decoder, stages.first_params, ids)[..., :ROWS],
        _logits(Decoder(model.config, ROWS), model.params, ids),
        atol=1e-6,
    )


def test_experts_begin_as_the_dense_model(stages, shared, llama, tmp_path):
    experts = MixtureOfExperts(num_experts=3, mlp_dim=1, dispatch="dropless")
    sparse = make_stages(shared, tmp_path, Initialisation(llama, upcycle=experts))
    assert sparse.decoder.config.moe == dataclasses.replace(experts, mlp_dim=LLAMA.mlp_dim)
    assert sparse.config.initialisation.decoder_config(sparse.config.decoder) == sparse.decoder.config
    ids = jnp.array([stages.vocabulary.encode("once upon a time")])
    expected = _logits(stages.decoder, stages.first_params, ids)
    np.testing.assert_allclose(_logits(sparse.decoder, sparse.first_params, ids), expected, atol=1e-5)


def _logits(decoder: Decoder, params, ids) -> np.ndarray:
    places = jnp.arange(ids.shape[1])[None]
    mask = (places[:, :, None] >= places[:, None])[: len(ids)]
    return np.asarray(decoder.apply({"params": params}, ids, places, mask)[0])


def test_rows_from_text_are_averages_over_items(stages, shared, llama, tmp_path):
    learnt = np.arange(stages.corpus.num_items) != 3
    words, table, corpus = stages.vocabulary, stages.table, stages.corpus
    sources = item_text_sources(corpus, table, words, learnt)
    found = np.zeros((words.vocab_size - ROWS, ROWS))
    np.add.at(found, (sources.rows, sources.ids), sources.weights)
    expected = np.zeros_like(found)
    for item in np.flatnonzero(learnt):
        text = " ".join(corpus.items[field][int(item)] for field in corpus.text_fields)
        for token in words.encode_sid(table.codes[item]):
            for piece in words.encode(text):
                expected[token - ROWS, piece] += 1 / len(words.encode(text))
    assert expected.sum() > 1
    np.testing.assert_allclose(found, expected, atol=1e-5)

    from_text = make_stages(shared, tmp_path, Initialisation(llama, "text"))
    assert from_text.first_fingerprint != stages.first_fingerprint
    grown = from_text.first_params["embedding"]
    table_of_model = stages.first_params["embedding"][:ROWS]
    known = found.sum(axis=1) > 0
    averages = (found @ table_of_model)[known] / found.sum(axis=1, keepdims=True)[known]
    correlation = np.corrcoef(grown[ROWS:][known].ravel(), averages.ravel())[0, 1]
    assert correlation > 0.9  # noise of the covariance remains


def test_drawn_rows_are_as_far_apart_as_words(stages, shared, llama, tmp_path):
    drawn = make_stages(shared, tmp_path, Initialisation(llama, "drawn"))
    old, new = drawn.first_params["embedding"][:ROWS], drawn.first_params["embedding"][ROWS:]
    assert drawn.first_fingerprint != stages.first_fingerprint
    np.testing.assert_allclose(new.std(axis=0).mean(), old.std(axis=0).mean(), rtol=0.2)
    assert stages.first_params["embedding"][ROWS:].std(axis=0).max() < 0.01 * old.std()


def test_a_tokenizer_alone_serves_a_random_model_and_is_an_input(shared, llama, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{llama}/{name}", tmp_path)
    config = make_stages(shared, tmp_path, Initialisation()).config
    config = dataclasses.replace(config, vocabulary=pipeline.VocabularyConfig(text_model=str(tmp_path)))
    words = pipeline.GenerativeStages(config, tmp_path / "run", config.data.stages(shared)).vocabulary
    assert (words.num_pieces, words.eos_id) == (258, 257) and words.decode(words.encode("</s> <A1>")) == "</s> <A1>"
    assert (
        pipeline.GenerativeStages(config, tmp_path / "run", config.data.stages(shared)).vocabulary.fingerprint
        == words.fingerprint
    )
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    assert pipeline.GenerativeStages(config, tmp_path / "run", config.data.stages(shared)).vocabulary.eos_id == 256


def test_what_cannot_be_is_said(shared, llama, tmp_path):
    with pytest.raises(ValueError, match="the run sets num_layers, mlp_dim: leave the file of gin/model/ out"):
        _ = make_stages(shared, tmp_path, Initialisation(llama), num_layers=3, mlp_dim=8).decoder
    with pytest.raises(ValueError, match=r"NEW_ROWS\) to be one of \('mean', 'text', 'drawn'\), got 'zero'"):
        Initialisation(llama, "zero")
    with pytest.raises(ValueError, match="set PRETRAINED"):
        Initialisation(upcycle=MixtureOfExperts())
    with pytest.raises(ValueError, match="set PRETRAINED"):
        Initialisation(weights=False)
    with pytest.raises(ValueError, match=r"all parameters are random \(PRETRAINED_WEIGHTS = False\): leave it 'mean'"):
        Initialisation(llama, "drawn", weights=False)
    export_hugging_face(tmp_path / "bare", LLAMA, read_pretrained(llama).params)
    with pytest.raises(ValueError, match="without a tokenizer"):
        _ = make_stages(shared, tmp_path / "run", Initialisation(str(tmp_path / "bare"))).vocabulary


def test_gin_says_it_by_macros(llama):
    files = ["gin/run/pipeline.gin", "gin/corpus/simulator.gin", "gin/pretrained/experts.gin"]
    flags = [f"PRETRAINED = '{llama}'", "NEW_ROWS = 'text'", "SEED = 3"]
    flags += [
        "config.MixtureOfExperts.num_experts = 5",
        "cpt/next_token.NextToken.z_weight = 0.5",
        "MODEL_DIR = '/nowhere'",
    ]
    try:
        run.configure(files, flags)
        config = gin.query_parameter("%PIPELINE").scoped_configurable_fn()
    finally:
        gin.clear_config()
    assert config.initialisation == Initialisation(llama, "text", MixtureOfExperts(num_experts=5), seed=3)
    assert (config.cpt.objective.z_weight, config.retrieval.objective.z_weight) == (0.5, 0.001)


def test_the_weights_of_the_routers_losses_reach_the_objective(stages, handed_over):
    weights = NextToken(balance_weight=0.25, z_weight=0.125)
    phase = dataclasses.replace(stages.config.cpt, objective=weights)
    objective = stages._train("cpt", phase, stages.cpt_records, None, "none")["objective"]
    assert objective.weights == weights


def test_the_arms_of_the_study_of_starts_differ_in_the_start_and_in_cpt_alone(llama):
    flags = [f"PRETRAINED = '{llama}'", "DATA_DIR = 'somewhere'", "MODEL_DIR = '/nowhere'"]
    try:
        run.configure(["experiments/init_cpt/study.gin", "experiments/init_cpt/ml_1m.gin"], flags)
        systems = {name: arm.scoped_configurable_fn() for name, arm in gin.query_parameter("%SYSTEMS").items()}
    finally:
        gin.clear_config()
    arms = {name: (arm.cpt, arm.pipeline.initialisation.weights, arm.folder) for name, arm in systems.items()}
    assert arms == {
        "R1": (False, False, "random"),
        "R2": (False, True, ""),
        "CR1": (True, False, "random"),
        "CR2": (True, True, ""),
    }
    start = systems["CR2"].pipeline.initialisation
    pipelines = [dataclasses.replace(arm.pipeline, initialisation=start) for arm in systems.values()]
    assert all(pipeline == pipelines[0] for pipeline in pipelines)
