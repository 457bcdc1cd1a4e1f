"""Networks that predict a label of an event from what its user did before."""
