"""Jobs about a model: its size, and its weights for other programs."""

from __future__ import annotations

from etils import epath

from plum_jax import artifact
from plum_jax.interop.pretrained import export_hugging_face
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import forward_flops_per_token, parameter_counts, train_step_flops
from plum_jax.systems.generative.pipeline import Pipeline


def export_model(model_dir: str, pipeline: Pipeline, dtype: str = "float32") -> None:
    """The model with CPT as a Hugging Face directory, MODEL_DIR/hugging_face (trained if it is not yet).

    The vocabulary's files lie beside the weights: the text's pieces as a file that other programs read, and
    `tokens.json`, which names the tokens behind them.

    Args:
      model_dir: of the run.
      pipeline: all stages.
      dtype: of the weights in the file: float32, float16 or bfloat16.
    """
    stages = pipeline.stages(model_dir)
    vocabulary, directory = stages.vocabulary, stages.directory / "hugging_face"
    files = (stages.directory / "vocabulary").iterdir()
    family = export_hugging_face(
        str(directory),
        stages.decoder.config,
        stages.params,
        max_length=stages.config.retrieval.length,
        dtype=dtype,
        special_ids={
            "bos_token_id": vocabulary.start_id,
            "eos_token_id": vocabulary.eos_id,
            "pad_token_id": vocabulary.pad_id,
        },
        tokenizer_files={file.name: file.read_bytes() for file in files if file.name != artifact.MANIFEST},
    )
    print(f"exported as {family}: {directory}")


def model_size(model_dir: str, decoder: DecoderConfig, vocab_size: int, length: int) -> None:
    """Parameters by group and FLOPs of a decoder, as a table and as `model_size.json`.

    Args:
      model_dir: gets the file.
      decoder: the sizes.
      vocab_size: V.
      length: T of a training row; attention's operations are those of the whole `[T, T]` matrix.
    """
    sizes: dict[str, float] = dict(parameter_counts(decoder, vocab_size))
    sizes["forward_flops_per_token"] = forward_flops_per_token(decoder, vocab_size, length)
    sizes["train_flops_per_token"] = train_step_flops(decoder, vocab_size, 1, length) / length
    artifact.write_json(epath.Path(model_dir) / "model_size.json", sizes)
    print("\n".join(f"{name:28s}{value:>20,.0f}" for name, value in sizes.items()))
