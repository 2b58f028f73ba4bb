"""Highest preference variance: the prompts whose DPO gradient may be large (arXiv 2510.13022)."""

from pvar.selection.strategy import PVAR, Strategy, largest_first

TOP = Strategy(PVAR, largest_first, wants_high_pvar=True)
