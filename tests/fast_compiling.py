"""Flags of XLA for tests: compiling is most of their time, and what it optimises runs for milliseconds.

All processes of a test have the same: others would round otherwise, and could not share what is compiled.
"""

FAST_COMPILING = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
