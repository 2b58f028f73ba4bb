"""The parts of stage train: rows of token ids, reference log-probabilities, TRL's trainers."""
