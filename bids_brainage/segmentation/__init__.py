"""Measure the regions of a brain with a network that ships with the package.

`regions` says which regions there are, `network` is the network, `weights` reads what ships, and
`measure` turns one T1w image into labels and volumes.
"""
