"""Win rates of one model against another: public benchmarks and paired comparisons.

Definitions follow the benchmarks' own code; each module states its source and the differences. The
modules compute on values in memory; judges and files are in other packages.
"""
