"""What a recommender must beat: popularity and item-kNN."""
