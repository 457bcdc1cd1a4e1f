"""Compiles MaxText's own train step for a TPU pod, for `benchmarks/compiled_training.py` to set beside ours.

Runs in an environment of its own, for MaxText pins other versions (`pip install "maxtext[tpu]"`, Python 3.12):

    ALLOW_MULTIPLE_LIBTPU_LOAD=1 TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu \\
      python benchmarks/maxtext_compile.py OUTPUT_DIRECTORY [name=value of MaxText's configuration ...]

It calls `maxtext.trainers.pre_train.train_compile.main` as `python -m` would, and keeps what that throws away: the text
of the compiled program (`program.hlo`) and its memory analysis (`memory.json`).
"""

import json
import pathlib
import sys
import time

# 24 layers of width 1,536, 12 heads of 128, 16 experts of 2,048 (two a token, capacity 1.25), a vocabulary of 48,128,
# 4 rows of 1,536 tokens a chip, everything split over 256 chips, all activations of a layer recomputed.
REFERENCE = {
    "run_name": "reference",
    "compile_topology": "v6e-256",
    "compile_topology_num_slices": 1,
    "ici_fsdp_parallelism": 256,
    "decoder_block": "mixtral",
    "base_num_decoder_layers": 24,
    "base_emb_dim": 1536,
    "base_num_query_heads": 12,
    "base_num_kv_heads": 12,
    "head_dim": 128,
    "base_mlp_dim": 2048,
    "base_moe_mlp_dim": 2048,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "sparse_matmul": False,
    "capacity_factor": 1.25,
    "vocab_size": 48128,
    "logits_via_embedding": True,
    "max_target_length": 1536,
    "per_device_batch_size": 4,
    "remat_policy": "full",
    "scan_layers": True,
    "attention": "flash",
    "dtype": "bfloat16",
    "weight_dtype": "float32",
    "opt_type": "adamw",
    "dataset_type": "synthetic",
    "enable_checkpointing": False,
}


def main() -> None:
    """Compiles with the arguments of the command line over those of the reference run."""
    import maxtext
    from maxtext.trainers.pre_train import train_compile

    output = pathlib.Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    settings = REFERENCE | dict(argument.split("=", 1) for argument in sys.argv[2:])
    compile_step = train_compile.jit_and_compile

    def keep(*arguments, **keywords):
        began = time.perf_counter()
        compiled = compile_step(*arguments, **keywords)
        memory = compiled.memory_analysis()
        names = ("argument", "output", "alias", "temp", "generated_code")
        sizes = {f"{name}_bytes": getattr(memory, f"{name}_size_in_bytes") for name in names}
        sizes["compile_seconds"] = time.perf_counter() - began
        (output / "program.hlo").write_text(compiled.as_text())
        (output / "memory.json").write_text(json.dumps({**sizes, "settings": settings}))
        print(json.dumps(sizes))
        return compiled

    train_compile.jit_and_compile = keep
    base = pathlib.Path(maxtext.__file__).parent / "configs" / "base.yml"
    train_compile.main(["train_compile", str(base), *(f"{name}={value}" for name, value in settings.items())])


if __name__ == "__main__":
    main()
