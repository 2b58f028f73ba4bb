"""Judges, which decide which of two answers is better: implementations of the `Judge` protocol."""
