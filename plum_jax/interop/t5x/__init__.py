"""T5X, where it is importable: our decoder, its tasks, optimizers and checkpoints under T5X's programs.

Nothing else of plum_jax imports T5X, and no module of this package is imported unless somebody asks for it.
"""
