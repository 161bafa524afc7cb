"""The claims, measured. One file a claim; ``make bench`` runs them all.

Each prints a table and, where there is a peer, the ratio to it from the same run. Contenders are
interleaved and medians taken, since the machine is shared with whatever else it does.
"""
