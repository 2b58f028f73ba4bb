"""Reward models: each scores responses through the `Scorer` port."""
