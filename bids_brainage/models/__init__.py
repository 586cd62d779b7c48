"""Networks and other models, and their registry.

Importing this package reads no weights and imports no deep-learning library, so that
``--list-models`` answers at once.
"""

from bids_brainage.models.registry import (
    ModelInfo,
    create_model,
    list_models,
    model_info,
    trainable_models,
)

__all__ = ['ModelInfo', 'create_model', 'list_models', 'model_info', 'trainable_models']
