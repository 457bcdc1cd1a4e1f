"""What every reader hands over: one naming of fields and tensors, Hugging Face's, whatever the file's own is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from plum_jax.interop.layout import Tensors


@dataclasses.dataclass(frozen=True)
class Source:
    """A language model of another program, not read yet.

    Attributes:
      fields: as in a Hugging Face `config.json`, with `model_type`.
      tensors: Hugging Face name -> what reads the tensor; queries and keys in the "rotate half" layout.
      norm_offset: what is added to the norms' weights (1 where the file's weight w means 1 + w).
      tokenizer_files: file name -> content, such as `tokenizer.json` or `tokenizer.model`.
    """

    fields: Mapping[str, Any]
    tensors: Tensors
    norm_offset: float
    tokenizer_files: Mapping[str, bytes]
