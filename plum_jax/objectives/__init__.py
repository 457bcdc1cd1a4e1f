"""What is minimised: losses `(params, batch, rng) -> (loss_sum, weight_sum, metrics)`, sums only."""
