"""What a table of runs may say of a run: names of fields, which are numbers, what a study of ours calls them."""

from __future__ import annotations

FLOPS_PER_ND = 6.0
FINISHED = "finished"

# Field -> what it is. A mapping names fields of this list.
NUMBERS = {
    "N": "parameters that the law is about",
    "D": "tokens trained on, repeated ones counted again",
    "C": "FLOPs spent",
    "budget": "FLOPs intended: what groups the runs of one iso-FLOP curve",
    "loss": "held-out loss in nats a token",
    "loss_se": "its standard error",
    "recall": "a rate in [0, 1] that is better when it is larger",
    "hits": "how many users the rate counted, not divided",
    "users": "how many users were asked",
    "learning_rate": "peak learning rate",
    "unique_tokens": "tokens before repetition",
    "epochs": "D / unique_tokens",
    "N_non_embedding": "parameters without embedding and head",
    "N_activated": "parameters that one token meets (mixture of experts)",
    "N_activated_non_embedding": "the same without embedding and head",
    "C_spent": "FLOPs spent for the run alone, where runs share a trunk; C is that of the whole path",
    "C_6nd": "6 N D by the N of whoever wrote the table",
    "wall_seconds": "how long the run took",
}
TEXTS = {
    "run": "identity of a run; its checkpoints share it",
    "size": "name of the model's size",
    "seed": "of the run",
    "status": "'finished', or what went wrong",
    "reason": "why it went wrong",
}
FLAGS = {"held_out": "true for the runs that no fit may see"}
FIELDS = {**NUMBERS, **TEXTS, **FLAGS}
POSITIVE = ("N", "D", "C", "budget", "loss", "learning_rate", "users", "unique_tokens", "epochs", "C_6nd")
MAY_BE_ZERO = ("C_spent", "loss_se", "recall", "hits", "wall_seconds")

# The rows of a study of ours (`STUDY_DIR/results.jsonl`).
OURS = {
    **{name: name for name in FIELDS},
    "run": "name",
    "N": "parameters",
    "D": "tokens",
    "C": "flops",
    "recall": "recall@10",
    "hits": "hits@10",
    "N_non_embedding": "non_embedding_parameters",
    "N_activated": "activated_parameters",
    "N_activated_non_embedding": "activated_non_embedding_parameters",
    "C_6nd": "flops_6nd",
    "C_spent": "flops_spent",
}


class RunsError(ValueError):
    """A table of runs cannot be read: a column is missing, or a value cannot be one."""
