"""Which columns of items blocks of features are made of: for checks that nothing reads what it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from plum_jax.corpus.features.artefact import FeatureBuilder
from plum_jax.corpus.features.categorical import Categorical
from plum_jax.corpus.features.text import SentenceTransformerEmbedding, TextEmbedding
from plum_jax.corpus.schema import Corpus

READ = "fields_read"  # in the manifest of a model's vectors: what it has read


def fields_read(builders: Sequence[FeatureBuilder], corpus: Corpus) -> tuple[str, ...]:
    """Names of text and categories, sorted. A block that is read from a file does not say what it was made of."""
    found: set[str] = set()
    for builder in builders:
        if isinstance(builder, TextEmbedding | SentenceTransformerEmbedding):
            found |= {*(builder.fields or corpus.text_fields)}
        elif isinstance(builder, Categorical):
            found |= {*(builder.fields or corpus.item_features)}
    return tuple(sorted(found))
