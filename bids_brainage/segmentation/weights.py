"""The weights of the segmentation network that ship with the package.

They lie in ``data/segmentation/muse``: ``model.safetensors`` holds every member of the ensemble,
``metadata.json`` how to build them, who they were trained on, how good they are and their licence.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_brainage.errors import BundleError

if TYPE_CHECKING:
    from bids_brainage.segmentation.network import StructureUNet

FOLDER = 'data/segmentation/muse'


def weights_path() -> Path:
    """Return the file of the packaged weights."""
    return Path(str(files('bids_brainage').joinpath(FOLDER, 'model.safetensors')))


@cache
def card() -> dict[str, Any]:
    """Return the card of the packaged weights, content of ``metadata.json``."""
    text = weights_path().with_name('metadata.json').read_text('utf-8')
    content: dict[str, Any] = json.loads(text)
    return content


def segmentation_facts() -> dict[str, str]:
    """Return ``Name``, ``Version``, ``WeightsSHA256`` of the packaged network, for side files."""
    found = card()
    return {
        'Name': found['name'],
        'Version': found['version'],
        'WeightsSHA256': found['weights_sha256'],
    }


def load_networks(*, threads: int = 1, device: str = 'cpu') -> tuple[StructureUNet, ...]:
    """Build the packaged networks, ready to use.

    Parameters
    ----------
    threads : int
        CPU threads of torch.
    device : str
        Torch device.

    Returns
    -------
    tuple of StructureUNet
        In eval mode, float32.

    Raises
    ------
    BundleError
        If the weights are not those of the card.
    """
    import torch
    from safetensors.torch import load

    from bids_brainage.segmentation.network import StructureUNet

    torch.set_num_threads(threads)
    content = weights_path().read_bytes()
    found, expected = hashlib.sha256(content).hexdigest(), card()['weights_sha256']
    if found != expected:
        raise BundleError(
            f'{weights_path()}: SHA-256 is {found}, expected {expected}. The weights are damaged '
            'or were altered; install the package again.'
        )
    members: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load(content).items():
        member, _, key = name.partition('.')
        members.setdefault(member, {})[key] = value.float()
    networks = []
    for _, state in sorted(members.items()):
        network = StructureUNet(**card()['arch_options'])
        network.load_state_dict(state)
        networks.append(_ready(network.eval(), device))
    return tuple(networks)


def _ready(network: Any, device: str) -> StructureUNet:
    """Return a network on its device, in the memory layout that is fastest on CPUs."""
    import torch

    ready: StructureUNet = network.to(device, memory_format=torch.channels_last_3d)
    return ready
