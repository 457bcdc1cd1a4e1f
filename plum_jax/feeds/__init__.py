"""What training reads: token records packed into batches, arrays in memory."""
