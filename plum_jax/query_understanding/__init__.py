"""Query understanding: a query's categories, what else it could be called, and what items go with an item."""
