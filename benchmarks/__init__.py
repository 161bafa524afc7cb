"""The claims, measured. One file has one claim; ``make bench`` runs them all.

Each prints a table and, where another program does the same, the ratio to it in the same run.
Contenders are interleaved, and results are medians, because the machine also does other work.
"""
