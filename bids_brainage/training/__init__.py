"""Training: from derivatives and ages to a bundle that predicts.

Nothing here imports torch or Lightning until a training runs.
"""
