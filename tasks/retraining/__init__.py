"""New preference data: which files arrived, and the log of batches made of them."""
