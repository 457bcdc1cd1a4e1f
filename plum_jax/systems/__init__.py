"""What is compared: each trains on the shared stages and ranks all items for the users of a fold."""
