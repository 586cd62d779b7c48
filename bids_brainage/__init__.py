"""Brain age from BIDS datasets: how old a brain looks, why, and how far to trust it."""

__version__ = '0.1.0'
