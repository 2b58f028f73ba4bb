"""Lowest preference variance: the counterpart with small gradients (arXiv 2510.13022)."""

from pvar.selection.strategy import PVAR, Strategy, smallest_first

BOTTOM = Strategy(PVAR, smallest_first)
