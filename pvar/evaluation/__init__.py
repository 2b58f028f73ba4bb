"""Win rates of one model against another: the public benchmarks' numbers and paired comparisons.

Definitions follow the benchmarks' own code; each module names what it takes over and where it
differs. Everything here is arithmetic on values in memory: judges and files are elsewhere.
"""
