"""Highest preference variance: the prompts whose DPO gradient may be large (arXiv 2510.13022).

"May" is a bound for soft or drawn labels; `pvar/gradient_bound.py` says what is not bounded.
"""

from pvar.selection.strategy import PVAR, Strategy, largest_first

TOP = Strategy(PVAR, largest_first, wants_high_pvar=True)
