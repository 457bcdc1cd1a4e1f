"""T5X's `InteractiveModel` over a `SidModel`: prompts as they are typed, Semantic IDs and beams as answers."""

from __future__ import annotations

from typing import Any

from plum_jax.interop.t5x.partitioner import Partitioner
from plum_jax.interop.t5x.sid_model import SidModel

from t5x import interactive_model  # isort: skip


def answering(
    model: SidModel, checkpoint: str, output_dir: str, *, batch_size: int = 1, longest_prompt: int = 128
) -> Any:
    """An `InteractiveModel` whose `predict_with_aux(["<history> <A12><B5><C3>"])` answers with the next Semantic ID.

    Beside each answer stand "codes" and "scores" of all beams. Prompts get no end token; names of tokens are read as
    tokens (`tasks.prompt_vocabulary`).

    Args:
      model: as the checkpoint was trained.
      checkpoint: directory checkpoint_<step>, absolute; "": random parameters.
      output_dir: where T5X writes what it writes.
      batch_size: prompts of one call, a multiple of the devices that split the batch.
      longest_prompt: in tokens; longer ones are cut by T5X.
    """
    lengths = {"inputs": longest_prompt, "targets": model.run.table.num_levels}
    return interactive_model.InteractiveModel(
        batch_size=batch_size,
        task_feature_lengths=lengths,
        output_dir=output_dir,
        partitioner=Partitioner(model.mesh_shape),
        model=model,
        dtype="float32",
        restore_mode="specific" if checkpoint else "latest",
        checkpoint_path=checkpoint,
        input_shapes={"decoder_input_tokens": (batch_size, sum(lengths.values()))},
        add_eos=False,
    )
