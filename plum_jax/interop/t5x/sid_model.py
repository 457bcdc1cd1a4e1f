"""The decoder as a T5X model: its loss, its scores, and the constrained beam search as its decode function."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics
from jax.sharding import Mesh

from plum_jax.interop.t5x.installed import T5xError
from plum_jax.interop.t5x.microbatches import WHOLE_WEIGHT
from plum_jax.interop.t5x.parameters import plain, variables_of
from plum_jax.interop.t5x.run_files import RunFiles
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import PackedCausal
from plum_jax.objectives.next_token import NextToken
from plum_jax.objectives.objective import Objective
from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.recommend import Recommender, fastest_here
from plum_jax.training.initial import initial_params
from plum_jax.training.mesh import MeshShape
from tasks.feature_converter import CAUSAL, DecoderFeatures
from tasks.prompt_vocabulary import PromptVocabulary
from tasks.seqio_vocabulary import SeqioSidVocabulary

from t5x import metrics as t5x_metrics  # isort: skip
from t5x import models  # isort: skip

Batch = Mapping[str, jax.Array]


class SidModel(models.BaseTransformerModel):
    """`Decoder` and `Objective` under T5X: trains, evaluates, infers, answers.

    Packing, positions and weights come with the batch (`tasks.feature_converter`). The loss is the objective's, divided
    once, as in `training/step.py`; T5X's label_smoothing and z_loss are not used, the objective has its own.
    """

    def __init__(
        self,
        run: RunFiles,
        optimizer_def: Any,
        config: DecoderConfig = DecoderConfig(),  # noqa: B008 (frozen)
        objective: Objective = NextToken(),  # noqa: B008 (frozen)
        num_beams: int = 32,
        constrained: bool = True,
        mesh_shape: MeshShape = MeshShape(),  # noqa: B008 (frozen)
        init_seed: int | None = None,
    ) -> None:
        """A model over the vocabulary and the SidTable of a run.

        Args:
          run: prepared by plum.
          optimizer_def: `OptimizerDef`, or any of T5X's.
          config: sizes and choices of the decoder.
          objective: what is minimised.
          num_beams: M of the search.
          constrained: only Semantic IDs that exist.
          mesh_shape: that of the `Partitioner`; decides over kernels on TPU.
          init_seed: random parameters are those of a `TrainingConfig` of this seed; None: of T5X's own.
        """
        self.run, self.objective, self.num_beams = run, objective, num_beams
        self.constrained, self.mesh_shape, self._init_seed = constrained, mesh_shape, init_seed
        decoder = Decoder(config, run.vocabulary.vocab_size)
        super().__init__(
            module=decoder,
            input_vocabulary=PromptVocabulary(run.vocabulary),
            output_vocabulary=SeqioSidVocabulary(run.vocabulary),
            optimizer_def=optimizer_def,
        )
        self.FEATURE_CONVERTER_CLS = functools.partial(DecoderFeatures, bos_id=run.vocabulary.start_id)

    @property
    def recommender(self) -> Recommender:
        """What the decode function is, outside of T5X."""
        return Recommender(self.module, self.run.vocabulary, self.run.table, num_beams=self.num_beams)

    @functools.cached_property
    def _mesh(self) -> Mesh:
        return self.mesh_shape.build()

    @functools.cached_property
    def _loss(self) -> Any:
        return self.objective.on(self.module, self._mesh)

    def get_initial_variables(
        self, rng: jax.Array, input_shapes: Mapping[str, Any], input_types: Mapping[str, Any] | None = None
    ) -> Any:
        """Random parameters "params" and their logical axes "params_axes"; they depend on no input's shape."""
        init = initial_params(self.module)
        assert callable(init)
        if self._init_seed is not None:
            # As training.step.initial_state folds it; T5X may have made another generator the default (hardware_rng).
            rng = jax.random.fold_in(jax.random.key(self._init_seed, impl="threefry2x32"), 0)
        return variables_of(init(rng))

    def loss_fn(self, params: Any, batch: Batch, dropout_rng: jax.Array | None) -> tuple[jax.Array, dict[str, Any]]:
        """The objective's mean over the batch (over the whole one, where this is a microbatch), and its metrics."""
        loss_sum, weight_sum, metrics = self._loss(plain(params), batch, dropout_rng)
        divisor = batch[WHOLE_WEIGHT][0] if WHOLE_WEIGHT in batch else weight_sum
        loss = loss_sum / jnp.maximum(divisor, 1e-8)
        rows, tokens = batch["decoder_target_tokens"].shape[0], batch["decoder_target_tokens"].size
        return loss, {
            **{name: clu_metrics.Average(total=total, count=weight) for name, (total, weight) in metrics.items()},
            "loss": t5x_metrics.AveragePerStep(total=loss),
            "timing/steps_per_second": t5x_metrics.StepsPerTime.from_model_output(),
            "timing/seconds": t5x_metrics.Time(),
            "timing/seqs_per_second": t5x_metrics.TimeRate.from_model_output(numerator=jnp.array(rows)),
            "timing/target_tokens_per_second": t5x_metrics.TimeRate.from_model_output(numerator=jnp.array(tokens)),
            "non_padding_fraction/decoder": clu_metrics.Average(
                total=jnp.sum(batch["decoder_segment_ids"] != 0).astype(jnp.float32), count=jnp.float32(tokens)
            ),
        }

    def _compute_logits(self, params: Any, batch: Batch, dropout_rng: jax.Array | None = None) -> jax.Array:
        """`[B, T, V]` float32 of a batch's rows."""
        return self._loss.decoder.apply(
            {"params": plain(params)},
            batch["decoder_input_tokens"],
            batch["decoder_positions"],
            PackedCausal(batch["decoder_segment_ids"]),
            deterministic=dropout_rng is None,
            rngs=None if dropout_rng is None else {"dropout": dropout_rng},
        ).values

    def score_batch(self, params: Any, batch: Batch, return_intermediates: bool = False) -> Any:
        """float32 `[B]`: the weighted log-probability of each row, that of the target after a prompt."""
        targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
        log_probs = jax.nn.log_softmax(self._compute_logits(params, batch), axis=-1)
        tokens = jnp.take_along_axis(log_probs, targets[:, :, None], axis=-1)[:, :, 0] * weights
        if not return_intermediates:
            return jnp.sum(tokens, axis=-1)
        values = {"target_tokens": (targets,), "loss_weights": (weights,), "token_scores": (tokens,)}
        return jnp.sum(tokens, axis=-1), {"decoder": values}

    def predict_batch_with_aux(
        self, params: Any, batch: Batch, rng: jax.Array | None = None, *, num_beams: int | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The best Semantic ID after each prompt, as tokens int32 `[B, L]`, and all beams.

        Args:
          params: the decoder's.
          batch: rows of prompts, with `decoder_causal_attention`; what follows the prompts is not read.
          rng: not used: the search draws nothing.
          num_beams: M; None: the model's.

        Returns:
          tokens, and "codes" int32 `[B, M, L]` with "scores" float32 `[B, M]`, best first, ended by -1 and -inf.

        Raises:
          T5xError: the batch has no prompts.
        """
        if CAUSAL not in batch:
            raise T5xError(
                f"expected rows of prompts, with {CAUSAL}, got {', '.join(sorted(batch))}: evaluate and infer on "
                "the prompts (gin/t5x/prompts.gin), and give 'inputs' a length in TASK_FEATURE_LENGTHS"
            )
        vocabulary, table = self.run.vocabulary, self.run.table
        is_prompt = batch[CAUSAL]
        decoder, params = fastest_here(self._loss.decoder, plain(params))
        codes, scores = beam_search(
            decoder,
            params,
            batch["decoder_input_tokens"][:, 1:] * is_prompt[:, 1:],
            (jnp.sum(is_prompt, axis=1) - 1).astype(jnp.int32),
            sid_offsets=tuple(int(offset) for offset in vocabulary.sid_offsets),
            codebook_sizes=table.codebook_sizes,
            num_beams=num_beams or self.num_beams,
            trie=self._trie if self.constrained else None,
            start_token=vocabulary.start_id,
        )
        best = codes[:, 0]
        tokens = jnp.where(best >= 0, best + jnp.asarray(vocabulary.sid_offsets), vocabulary.pad_id)
        return tokens, {"codes": codes, "scores": scores}

    @functools.cached_property
    def _trie(self) -> Any:
        # Outside of the trace that may ask first: a traced array must not outlive it.
        with jax.ensure_compile_time_eval():
            return self.recommender.trie
