"""IDs that no content explains: random ones are uniform and stable, a file's are read or refused by name."""

import json

import numpy as np
import polars as pl
import pytest

from plum_jax import artifact
from plum_jax.semantic_ids.build import build_sid_table
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.file_ids import FileIds
from plum_jax.semantic_ids.inputs import QuantizerError
from plum_jax.semantic_ids.random_ids import RandomIds


def test_random_codes_hang_on_seed_and_item_alone(features, split, tmp_path):
    quantizer = RandomIds(codebook_sizes=(7, 300))
    codes = quantizer.quantize(features, split, tmp_path).codes
    np.testing.assert_array_equal(quantizer.codes(["v5", "v3"]), codes[[5, 3]])
    assert (RandomIds(codebook_sizes=(7, 300), seed=1).codes(["v5", "v3"]) != codes[[5, 3]]).any()


def test_random_codes_are_uniform():
    counts = np.bincount(RandomIds(codebook_sizes=(10,)).codes([f"item {i}" for i in range(20_000)])[:, 0])
    assert np.square(counts - 2000).sum() / 2000 < 33.7  # chi-square of 9 degrees of freedom, p = 1e-4


def test_a_table_of_random_ids_has_a_report_and_no_codec(features, split, tmp_path):
    table = build_sid_table(split, features, RandomIds(codebook_sizes=(4, 64)), "reassign", tmp_path / "sids")
    assert len(table.items_of_sid().sids) == 120
    report = json.loads((tmp_path / "sids" / "quality.json").read_text())
    assert report["reconstruction_error"] is None
    with pytest.raises(artifact.ArtifactError, match=r"has no codec.json: random IDs.*Use a table made by a quantiser"):
        load_codec(tmp_path / "sids")


CODES = np.stack([np.arange(120) // 10, np.arange(120) % 10 + 3], axis=1)


def write(tmp_path, kind: str) -> FileIds:
    names = [f"v{i}" for i in range(119, -1, -1)] + ["stranger"]
    codes = [*CODES[::-1].tolist(), [1, 2]]
    path = tmp_path / kind
    if kind == "ours.parquet":
        pl.DataFrame(
            {"item_id": names, "code_0": [c[0] for c in codes], "code_1": [c[1] for c in codes]}
        ).write_parquet(path)
    elif kind == "lists.parquet":
        pl.DataFrame({"asin": names, "codes": codes}).write_parquet(path)
        return FileIds(str(path), id_column="asin")
    elif kind == "lc_rec.index.json":
        path.write_text(json.dumps({str(n): [f"<a_{a}>", f"<b_{b}>"] for n, (a, b) in enumerate(codes)}))
        (tmp_path / "item2id").write_text("".join(f"{name}\t{n}\n" for n, name in enumerate(names)))
        return FileIds(str(path), id_map=str(tmp_path / "item2id"))
    else:
        path.write_text(json.dumps(dict(zip(names, codes, strict=True))))
    return FileIds(str(path))


@pytest.mark.parametrize("kind", ["ours.parquet", "lists.parquet", "lc_rec.index.json", "numbers.json"])
def test_all_layouts_give_the_same_table(features, split, tmp_path, kind):
    quantization = write(tmp_path, kind).quantize(features, split, tmp_path)
    np.testing.assert_array_equal(quantization.codes, CODES)
    assert quantization.codebook_sizes == (12, 13)
    assert quantization.report == {"ids_not_in_corpus": 1}


def test_our_own_table_is_read_back(features, split, tmp_path):
    table = build_sid_table(split, features, RandomIds(codebook_sizes=(4, 9)), "keep", tmp_path / "sids")
    again = FileIds(str(tmp_path / "sids" / "table.parquet"), codebook_sizes=(4, 9))
    copy = build_sid_table(split, features, again, "keep", tmp_path / "copy")
    assert copy.fingerprint == table.fingerprint


def test_a_changed_file_makes_the_table_again(features, split, tmp_path):
    quantizer = write(tmp_path, "numbers.json")
    first = build_sid_table(split, features, quantizer, "keep", tmp_path / "sids")
    path = tmp_path / "numbers.json"
    path.write_text(path.read_text().replace('"v0": [0, 3]', '"v0": [0, 4]'))
    assert build_sid_table(split, features, quantizer, "keep", tmp_path / "sids").fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"v0": ["<a_1>"]}', "has no ID for 119 of 120 items of corpus 'small', such as 'v1'"),
        ("[1, 2]", "expected a JSON object such as"),
        ("{", "is not JSON"),
        ('{"v0": ["<a_1>", "b"]}', """item 'v0': expected codes such as "<a_12>" or 12, got 'b'"""),
        ('{"v0": [1], "v0": [2]}', "item 'v0' has more than one ID"),
    ],
)
def test_files_that_are_no_ids_of_this_corpus(features, split, tmp_path, content, message):
    path = tmp_path / "ids.json"
    path.write_text(content)
    with pytest.raises(QuantizerError, match=message):
        FileIds(str(path)).quantize(features, split, tmp_path)


def test_codes_of_several_lengths_and_too_large_ones_are_named(features, split, tmp_path):
    path = tmp_path / "ids.json"
    path.write_text(json.dumps({f"v{i}": [1, 2] if i != 7 else [1] for i in range(120)}))
    with pytest.raises(QuantizerError, match="item 'v7': expected 2 codes of 0 or more, as item 'v0' has"):
        FileIds(str(path)).quantize(features, split, tmp_path)
    path.write_text(json.dumps({f"v{i}": [1, i] for i in range(120)}))
    with pytest.raises(QuantizerError, match=r"expected codes for codebooks \(2, 100\), its levels need \(2, 120\)"):
        FileIds(str(path), codebook_sizes=(2, 100)).quantize(features, split, tmp_path)
    with pytest.raises(QuantizerError, match="there is no file"):
        FileIds(str(tmp_path / "none.parquet")).quantize(features, split, tmp_path)
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(QuantizerError, match="is no Parquet file"):
        FileIds(str(tmp_path / "text.parquet")).quantize(features, split, tmp_path)
