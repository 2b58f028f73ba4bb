"""Lowest preference variance: the counterpart of `top` (arXiv 2510.13022).

Its gradients are bounded to be small for soft or drawn labels, not for hard ones
(`pvar/gradient_bound.py`).
"""

from pvar.selection.strategy import PVAR, Strategy, smallest_first

BOTTOM = Strategy(PVAR, smallest_first)
