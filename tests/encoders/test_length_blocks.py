"""Rows of about one length in blocks of few shapes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from plum_jax.encoders.length_blocks import blocks_by_length


@given(st.lists(st.integers(1, 9), max_size=30))
def test_every_row_stands_in_one_block_in_the_order_of_lengths(lengths):
    sizes = (1, 3, 7)
    blocks = blocks_by_length(np.array(lengths, int), sizes)
    rows = [int(row) for block, _ in blocks for row in block]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths)
    for block, filled in blocks:
        assert len(filled) == min(size for size in sizes if size >= len(block))
        assert filled[: len(block)].tolist() == block.tolist() and {*filled[len(block) :].tolist()} <= {block[-1]}
