"""Every quantiser's codec, read from its table, gives the items of a stream the codes that the table has."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from etils import epath
from shop_items import OLD, corpus_of, write_items

from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.balance import BalancedLastLevel
from plum_jax.semantic_ids.build import build_sid_table
from plum_jax.semantic_ids.catalogue.assign import assign_files
from plum_jax.semantic_ids.catalogue.shards import read_shard
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.inputs import fit_inputs
from plum_jax.semantic_ids.product_quantizer import ProductQuantizer
from plum_jax.semantic_ids.quantization import Quantization, quantize_with
from plum_jax.semantic_ids.residual_kmeans import ResidualKMeans, fit_codebooks
from plum_jax.semantic_ids.rqvae.encoder import RqVaeEncoder, read_inputs
from plum_jax.semantic_ids.rqvae.network import RqVaeNetwork

SIZES = (12, 8, 16)


@dataclasses.dataclass(frozen=True)
class UntrainedRqVae:
    """An RQ-VAE as it is before training, with latents of two blocks for codewords: training is another test's."""

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        inputs = fit_inputs(features)
        network = RqVaeNetwork(tuple(i.dim for i in inputs), (16,), encoder_dim=8, latent_dim=8, codebook_sizes=SIZES)
        blocks, present = read_inputs(inputs, features, False)
        init = functools.partial(network.init, method="encode")
        params = jax.jit(init)(jax.random.key(0), [b[:1] for b in blocks], [p[:1] for p in present])["params"]
        encoder = RqVaeEncoder(inputs, network, params, fuse_blocks=False)
        return quantize_with(Codec(encoder, fit_codebooks(encoder(features), SIZES, iterations=5)), features, {})


QUANTIZERS = {
    "residual k-means": (ResidualKMeans(SIZES, iterations=5), None),
    "balanced": (ResidualKMeans(SIZES, iterations=5), BalancedLastLevel(iterations=20)),
    "one block": (ResidualKMeans(SIZES, block_weights={"behaviour": 1.0}, iterations=5), None),
    "OPQ": (ProductQuantizer((8, 8, 8), iterations=5, rotation_iterations=2), None),
    "RQ-VAE": (UntrainedRqVae(), None),
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_codes_of_a_stream_are_those_of_the_table(old_items, tmp_path, name):
    quantizer, balance = QUANTIZERS[name]
    table = build_sid_table(
        corpus_of(old_items), old_items.features, quantizer, "keep", tmp_path / "sids", balance=balance
    )
    parts = np.array_split(np.arange(OLD), (1, 38, 39, 300))
    files = [write_items(tmp_path / "new" / f"{n}.parquet", old_items.take(part)) for n, part in enumerate(parts)]
    shards = assign_files(tmp_path / "sids", [epath.Path(path) for path in files], tmp_path / "shards")
    np.testing.assert_array_equal(np.concatenate([read_shard(shard).codes for shard in shards]), table.codes)
