"""A vocabulary over the pieces of a file, for tests."""

from collections.abc import Sequence

from plum_jax.semantic_ids.field_tokens import FieldTokens
from plum_jax.semantic_ids.vocabulary import CONTROL_TOKENS, SidVocabulary
from plum_jax.text.files import read_text


def vocabulary_of(
    path,
    codebook_sizes: Sequence[int],
    control_tokens: Sequence[str] = CONTROL_TOKENS,
    field_tokens: Sequence[FieldTokens] = (),
) -> SidVocabulary:
    """As runs make it, where a model file is named."""
    return SidVocabulary(read_text(path), codebook_sizes, control_tokens, field_tokens)
