"""New preference data: incoming files, and the log of batches made from them."""
