"""What stage train is made of: rows of token ids, reference log-probabilities, TRL's trainers."""
