"""Stochastic Frank-Wolfe for constrained sums of linear predictors (arXiv 2002.11860), and its oracles as an optimizer.

`sets` and `nuclear_ball` are where a solution may lie, `features`, `losses` and `problem` what is minimised, `methods`
and `step_sizes` how a step is made, `solve` the loop, `gradient_transformation` the same oracles in Optax.
"""
