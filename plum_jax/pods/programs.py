"""The programs of a run, compiled from shapes alone: the very train step, and the very step of a beam search."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import search_flops
from plum_jax.model.decoder import Decoder
from plum_jax.model.splash_attention import computed_share
from plum_jax.pods.costs import Costs, program_costs
from plum_jax.pods.hlo import Computation, Instruction, parse
from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.trie import SidTrie
from plum_jax.training.initial import initial_params
from plum_jax.training.mesh import batch_sharding, logical_axes, replicated
from plum_jax.training.step import abstract_state, make_train_step
from plum_jax.training.step_recipe import StepRecipe

_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
# Matrix products of length x length x head width in each Pallas kernel of splash attention.
_KERNEL_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 5}


class DoesNotFit(Exception):
    """The compiler gave up: the program needs more memory than a chip has. Its message says how much."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program of one chip.

    Attributes:
      name: "train step" or "beam search".
      given_bytes: by kind of argument, what a chip is given, without the padding of tiles.
      memory: bytes as the compiler lays them out: arguments, temporaries, outputs that are no arguments, program.
      model_flops: of the whole step on all chips that the model needs (`model.counts`, half of the causal scores).
      tokens: of the whole step.
      costs: of one chip.
      xla_flops: the compiler's own count, loops counted once.
      seconds: that compiling took.
      text: of the program.
    """

    name: str
    given_bytes: dict[str, int]
    memory: dict[str, int]
    model_flops: float
    tokens: int
    costs: Costs
    xla_flops: float
    seconds: float
    text: str

    @property
    def peak_bytes(self) -> int:
        return sum(self.memory.values())


def compile_train_step(recipe: StepRecipe, mesh: Mesh) -> Compiled:
    """The step that the trainer takes, for the devices of `mesh`.

    Raises:
      DoesNotFit: the compiler says that it needs more memory than there is.
    """
    training = recipe.training
    optimizer = training.transformation()
    key = jax.random.key(training.seed)
    init = recipe.init_params
    assert callable(init)
    state = abstract_state(init, optimizer, key, mesh)
    step = make_train_step(recipe.objective(mesh), optimizer, training.microbatches, key, mesh, state)
    batch = abstract_batch(recipe, mesh)
    given = {"parameters": state.params, "optimizer state": state.optimizer_state, "batch": batch}
    kernels = _kernel_flops(recipe.transformer, recipe.length)
    tokens = recipe.batch_size * recipe.length
    lowered = step.lower(state, batch)  # type: ignore[attr-defined]
    return _compiled("train step", lowered, given, recipe.flops, tokens, kernels)


@dataclasses.dataclass(frozen=True)
class Search:
    """A beam search to compile.

    Attributes:
      users: prompts of one device call, a multiple of the chips.
      prompt_length: tokens of a prompt.
      num_beams: M.
      codebook_sizes: of the Semantic IDs, whose tokens are the vocabulary's last.
      num_items: items of a random catalogue, whose trie constrains the search.
    """

    users: int
    prompt_length: int
    num_beams: int
    codebook_sizes: tuple[int, ...]
    num_items: int

    def trie(self) -> SidTrie:
        """The trie of distinct random SIDs."""
        rng = np.random.default_rng(0)
        columns = [rng.integers(0, size, self.num_items, dtype=np.uint32) for size in self.codebook_sizes]
        codes = np.stack(columns, axis=1)
        return SidTrie.from_codes(codes, tuple(self.codebook_sizes))

    def flops(self, config: DecoderConfig, vocab_size: int) -> float:
        """What the model needs: prompts once, then M tokens for every further level; logits where a code is chosen."""
        return self.users * search_flops(
            config, vocab_size, self.prompt_length, self.num_beams, len(self.codebook_sizes)
        )


def compile_beam_search(config: DecoderConfig, vocab_size: int, search: Search, mesh: Mesh) -> Compiled:
    """`retrieval.beam_search` with parameters split as in training and prompts split over all chips.

    Raises:
      DoesNotFit: the compiler says that it needs more memory than there is.
    """
    decoder = Decoder(config, vocab_size)
    init = initial_params(decoder)
    assert callable(init)
    params = abstract_state(init, optax.identity(), jax.random.key(0), mesh).params
    rows = batch_sharding(mesh)
    prompts = jax.ShapeDtypeStruct((search.users, search.prompt_length), jnp.int32, sharding=rows)
    lengths = jax.ShapeDtypeStruct((search.users,), jnp.int32, sharding=rows)
    trie = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), search.trie())
    offsets = vocab_size - sum(search.codebook_sizes) + np.cumsum((0, *search.codebook_sizes[:-1]))
    with logical_axes(mesh):
        lowered = beam_search.lower(
            decoder,
            params,
            prompts,
            lengths,
            sid_offsets=tuple(int(offset) for offset in offsets),
            codebook_sizes=tuple(search.codebook_sizes),
            num_beams=search.num_beams,
            trie=trie,
        )
    given = {"parameters": params, "prompts": (prompts, lengths), "trie": trie}
    tokens = search.users * (search.prompt_length + 1)
    return _compiled("beam search", lowered, given, search.flops(config, vocab_size), tokens, None)


def abstract_batch(recipe: StepRecipe, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """What the feed gives, split over the mesh."""
    ways = int(np.prod([mesh.shape[axis] for axis in batch_sharding(mesh).spec[0]]))
    if recipe.batch_size % (ways * recipe.training.microbatches):
        raise ValueError(
            f"expected batch_size to be a multiple of {ways} chips that it is split over x "
            f"{recipe.training.microbatches} microbatches, got {recipe.batch_size}"
        )
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=sharding)
        for name, values in recipe.batch().items()
    }


def _compiled(name: str, lowered: Any, given: dict[str, Any], flops: float, tokens: int, kernels: Any) -> Compiled:
    began = time.perf_counter()
    # Nothing for the compilation cache: a program for devices that are not here cannot be read back from it.
    cached_from = jax.config.values["jax_persistent_cache_min_compile_time_secs"]
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float("inf"))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if _OUT_OF_MEMORY not in str(error):
            raise
        raise DoesNotFit(_first_lines(str(error))) from error
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", cached_from)
    seconds = time.perf_counter() - began
    sizes, text = compiled.memory_analysis(), compiled.as_text()
    analysis = compiled.cost_analysis() or {}
    return Compiled(
        name=name,
        given_bytes={kind: bytes_a_chip(tree) for kind, tree in given.items()},
        memory={
            "arguments": sizes.argument_size_in_bytes,
            "temporaries": sizes.temp_size_in_bytes,
            "other outputs": sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
            "program": sizes.generated_code_size_in_bytes,
        },
        model_flops=flops,
        tokens=tokens,
        costs=program_costs(parse(text), kernels),
        xla_flops=float(analysis.get("flops", 0.0)),
        seconds=seconds,
        text=text,
    )


def bytes_a_chip(tree: Any) -> int:
    """Bytes of the shards that one device holds of arrays that need not exist."""

    def shard(x: Any) -> int:
        sharding: NamedSharding = x.sharding
        return int(np.prod(sharding.shard_shape(x.shape), dtype=np.int64)) * x.dtype.itemsize

    return sum(shard(x) for x in jax.tree.leaves(tree))


def _kernel_flops(config: DecoderConfig, length: int) -> Any:
    """Operations of one call of splash attention: whole blocks of scores, masked ones skipped."""
    shares = [computed_share(length, config.window if local else 0) for local in config.local_layers]
    share = sum(shares) / len(shares)

    def flops(name: str, instruction: Instruction, computation: Computation) -> float:
        for phase, products in _KERNEL_PRODUCTS.items():
            if f"_{phase}" in name:
                *batch, length, width = computation.instructions[_query(instruction, computation)].arrays[0].shape
                return 2.0 * products * float(np.prod(batch)) * length * length * width * share
        return 0.0

    return flops


def _query(instruction: Instruction, computation: Computation) -> str:
    """The first operand of four dimensions, [rows, heads, length, width]."""
    return next(name for name in instruction.operands if len(computation.instructions[name].arrays[0].shape) == 4)


def _first_lines(message: str) -> str:
    return " ".join(line.strip() for line in message.splitlines()[:4])[:400]
