"""Item features: dense blocks, one row an item, that Semantic IDs are made from."""

from plum_jax.corpus.features.artefact import FeatureBuilder, ItemFeatures, build_features
from plum_jax.corpus.features.block import FeatureBlock, FeatureError
from plum_jax.corpus.features.categorical import Categorical
from plum_jax.corpus.features.co_watch import CoWatchEmbedding
from plum_jax.corpus.features.file import FileEmbedding
from plum_jax.corpus.features.text import SentenceTransformerEmbedding, TextEmbedding

__all__ = [
    "Categorical",
    "CoWatchEmbedding",
    "FeatureBlock",
    "FeatureBuilder",
    "FeatureError",
    "FileEmbedding",
    "ItemFeatures",
    "SentenceTransformerEmbedding",
    "TextEmbedding",
    "build_features",
]
