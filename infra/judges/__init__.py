"""Judges: each says through the `Judge` port which of two answers is better."""
