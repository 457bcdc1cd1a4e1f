"""Oracle of the cost walker: a program written by hand, whose operations, bytes and turns are planted."""

import pytest

from plum_jax.pods.costs import program_costs
from plum_jax.pods.hlo import arrays, parse

# Three turns of a layer: gather a weight over 4 chips, multiply, scatter-add a gradient, send to a neighbour.
PROGRAM = """\
HloModule planted, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%all-reduce-scatter.1 (given: bf16[64,32]) -> bf16[16,32] {
  %given = bf16[64,32]{1,0:T(8,128)(2,1)} parameter(0)
  %reduced = bf16[64,32]{1,0:T(8,128)(2,1)} all-reduce(%given), replica_groups=[1,4]<=[4], to_apply=%add
  %zero = s32[] constant(0)
  ROOT %mine = bf16[16,32]{1,0:T(8,128)(2,1)} dynamic-slice(%reduced, %zero, %zero), dynamic_slice_sizes={16,32}
}

%product (left: bf16[128,64], right: bf16[64,32]) -> bf16[128,32] {
  %left = bf16[128,64]{1,0} parameter(0)
  %right = bf16[64,32]{1,0} parameter(1)
  ROOT %out = bf16[128,32]{1,0} convolution(%left, %right), dim_labels=bf_io->bf
}

%one_slice (stack: bf16[3,16,32], place: s32[]) -> bf16[16,32] {
  %stack = bf16[3,16,32]{2,1,0} parameter(0)
  %place = s32[] parameter(1)
  %none = s32[] constant(0)
  %slice = bf16[1,16,32]{2,1,0} dynamic-slice(%stack, %place, %none, %none), dynamic_slice_sizes={1,16,32}
  ROOT %flat = bf16[16,32]{1,0} bitcast(%slice)
}

%body (carried: (s32[], bf16[128,64], bf16[3,16,32])) -> (s32[], bf16[128,64], bf16[3,16,32]) {
  %carried = (s32[], bf16[128,64]{1,0}, bf16[3,16,32]{2,1,0}) parameter(0)
  %turn = s32[] get-tuple-element(%carried), index=0
  %activations = bf16[128,64]{1,0} get-tuple-element(%carried), index=1
  %weights = bf16[3,16,32]{2,1,0} get-tuple-element(%carried), index=2
  %two = s32[] constant(2)
  %next = s32[] add(%turn, %two)
  %weight = bf16[16,32]{1,0} fusion(%weights, %turn), kind=kLoop, calls=%one_slice
  %whole = bf16[64,32]{1,0} all-gather(%weight), replica_groups=mesh['data'=2,'fsdp'=4] {'fsdp'}, dimensions={0}
  %made = bf16[128,32]{1,0:T(8,128)S(1)} fusion(%activations, %whole), kind=kOutput, calls=%product, metadata={
"note":"a kernel's metadata may have line breaks"
}}, backend_config={}
  %scattered = bf16[16,32]{1,0} fusion(%whole), kind=kCustom, calls=%all-reduce-scatter.1
  %sent = (bf16[16,32]{1,0}, bf16[16,32]{1,0}, u32[]) collective-permute-start(%scattered), source_target_pairs={{0,1}}
  %come = bf16[16,32]{1,0} collective-permute-done(%sent)
  ROOT %carry = (s32[], bf16[128,64]{1,0}, bf16[3,16,32]{2,1,0}) tuple(%next, %activations, %weights)
}

%condition (carried.1: (s32[], bf16[128,64], bf16[3,16,32])) -> pred[] {
  %carried.1 = (s32[], bf16[128,64]{1,0}, bf16[3,16,32]{2,1,0}) parameter(0)
  %turn.1 = s32[] get-tuple-element(%carried.1), index=0
  %bound = s32[] constant(7)
  ROOT %more = pred[] compare(%turn.1, %bound), direction=LT
}

ENTRY %main (x.1: bf16[128,64], w: bf16[3,16,32]) -> f32[8,4,4] {
  %x.1 = bf16[128,64]{1,0} parameter(0)
  %w = bf16[3,16,32]{2,1,0} parameter(1)
  %first = s32[] constant(1)
  %start = (s32[], bf16[128,64]{1,0}, bf16[3,16,32]{2,1,0}) tuple(%first, %x.1, %w)
  %loop = (s32[], bf16[128,64]{1,0}, bf16[3,16,32]{2,1,0}) while(%start), condition=%condition, body=%body
  %q = f32[8,4,16]{2,1,0} custom-call(%x.1), custom_call_target="tpu_custom_call"
  %total = f32[8,4,16]{2,1,0} all-reduce(%q), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %scores = f32[8,4,4]{2,1,0} dot(%total, %q), lhs_batch_dims={0}, lhs_contracting_dims={2}
}
"""


def test_planted_operations_bytes_and_turns_are_found():
    costs = program_costs(parse(PROGRAM), lambda name, instruction, computation: 1e6)
    turns = 3  # 1, 3, 5
    assert costs.unknown_loops == []
    assert costs.flops == turns * 2 * 128 * 64 * 32 + 2 * 8 * 4 * 4 * 16 + 1e6
    assert costs.kernels == {"q": 1}
    weight, whole = 16 * 32 * 2, 64 * 32 * 2
    found = {kind: (t.count, t.bytes, t.wire_bytes) for kind, t in costs.collectives.items()}
    assert found == {
        "all-gather": (turns, turns * whole, turns * whole * 3 / 4),
        "reduce-scatter": (turns, turns * whole, turns * whole * 3 / 4),
        "collective-permute": (turns, turns * weight, turns * weight),
        "all-reduce": (1, 8 * 4 * 16 * 4, 8 * 4 * 16 * 4),  # 2 x 1/2
    }
    in_a_turn = (
        (3 * 4)  # the counter: read twice, written
        + 2 * weight + 4  # one slice of the stack, its place, the result
        + (128 * 64 * 2 + whole)  # the product's operands; its result stays on the chip
        + (whole + weight)  # what is scattered
    )  # fmt: skip
    at_the_end = 128 * 64 * 2 + 8 * 4 * 16 * 4 + 2 * 8 * 4 * 16 * 4 + 8 * 4 * 4 * 4
    assert costs.hbm_bytes == turns * in_a_turn + at_the_end


def test_a_loop_whose_turns_are_unknown_is_named_and_counted_once():
    text = PROGRAM.replace("compare(%turn.1, %bound), direction=LT", "compare(%turn.1, %bound), direction=NE")
    costs = program_costs(parse(text))
    assert costs.unknown_loops == ["loop"]
    assert costs.flops == 2 * 128 * 64 * 32 + 2 * 8 * 4 * 4 * 16


def test_turns_that_the_compiler_noted_are_believed():
    text = PROGRAM.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"11"}}')
    assert program_costs(parse(text)).collectives["all-gather"].count == 11


@pytest.mark.parametrize(
    ("window", "labels", "left", "right", "out", "flops"),
    [
        # A batch of 8 products as a TPU writes it: one window place of eight is real.
        ("{size=8 stride=7 lhs_dilate=8}", "0bf_0io->0bf", "[8,6,4]", "[8,4,5]", "[8,6,5]", 2 * 8 * 6 * 4 * 5),
        # The feature dimension spread over a window that reaches into padding.
        ("{size=3 pad=2_2 rhs_reversal=1}", "0bf_0io->0bf", "[1,6,4]", "[3,4,5]", "[3,6,5]", 2 * 3 * 6 * 4 * 5),
        # An ordinary one-dimensional convolution: no padding, 8 places of 3.
        ("{size=3}", "b0f_0io->b0f", "[2,10,4]", "[3,4,5]", "[2,8,5]", 2 * 2 * 8 * 3 * 4 * 5),
    ],
)
def test_products_that_are_written_as_windows(window, labels, left, right, out, flops):
    text = f"""\
ENTRY %main (a: bf16{left}, b: bf16{right}) -> bf16{out} {{
  %a = bf16{left} parameter(0)
  %b = bf16{right} parameter(1)
  ROOT %c = bf16{out} convolution(%a, %b), window={window}, dim_labels={labels}
}}
"""
    assert program_costs(parse(text)).flops == flops


def test_types_are_read():
    on_chip, scalar, rows = arrays("(f32[4,8]{1,0:T(8,128)S(1)}, s32[]{:T(128)}, /*index=2*/bf16[3,5]{1,0})")
    assert (on_chip.bytes, on_chip.on_chip) == (128, True)
    assert (scalar.bytes, scalar.on_chip, scalar.shape) == (4, False, ())
    assert (rows.bytes, rows.on_chip, rows.shape) == (30, False, (3, 5))


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        parse("HloModule nothing\n")
