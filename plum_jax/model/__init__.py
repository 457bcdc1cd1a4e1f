"""The decoder: configuration, masks, layers, counts. Imports nothing of ours."""
