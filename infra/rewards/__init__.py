"""Reward models, which score responses: implementations of the `Scorer` protocol."""
