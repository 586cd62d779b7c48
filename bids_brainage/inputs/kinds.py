"""The kinds of model input, each told once.

Prediction, training, untrained bundles, the contract of bundles and what a run finds finished all
ask the record of a kind, so they cannot disagree about what a model sees.  Adding a kind is adding
a record and the function that prepares its arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bids_brainage.errors import BundleError
from bids_brainage.names import derivative_path

if TYPE_CHECKING:
    import numpy as np

MODALITIES = {'t1w': 'affine', 'aicbv': 'aicbv'}
"""What an aligned image shows → its ``desc`` in the output dataset: the T1w brain, or the map of
cerebral blood volume in its place (System B)."""

CONNECTIVITY = 'connectivity'
"""Role of the table of correlations, which belongs to the functional runs of the session."""

DECLARED = 'declared'
"""Stands for the space of the bundle's grid, and for the ``desc`` of its modality."""

_MODULATED = {
    'space': DECLARED,
    'res': '1',
    'label': 'GM',
    'desc': 'modulated',
    'suffix': 'probseg',
}
_REGIONS = {'space': 'T1w', 'res': '2', 'desc': 'regions', 'suffix': 'dseg', 'extension': '.json'}
_MASK = {'desc': 'brain', 'suffix': 'mask'}
_OWN_SPACE = {'t1w_uncorrected', 'mask_native', 'region_volumes', 'regions'}
_ALIGNED = {'space': DECLARED, 'res': '1', 'desc': DECLARED, 'suffix': 'T1w'}


@dataclass(frozen=True)
class PreparedInput:
    """Arrays of one scan for one model.

    Attributes
    ----------
    arrays : tuple of ndarray
        In the order of the model's ``forward``, without batch axis; None for a modality that
        is missing where the model can do without it.
    affine : ndarray, shape (4, 4), or None
        Grid of the first array → RAS+ mm of ``space``; None if it is not an image.
    space : str or None
        TemplateFlow label, ``'T1w'`` for the person's own space, or None.
    note : str
        What was done differently from the usual, empty if nothing.
    """

    arrays: tuple[np.ndarray | None, ...]
    affine: np.ndarray | None
    space: str | None
    note: str = ''


Files = Mapping[str, Path]
"""Derivatives by role: ``t1w`` (brain, aligned with the template by an affine), ``gm_modulated``
(deformed to the template), ``volumes`` (table), ``region_volumes`` (table) with ``regions``
(labels, own space), ``t1w_uncorrected`` (own space, RAS+, bias field left in), ``mask_native``,
``connectivity``, ``structures`` (labels, in the space of ``t1w``), ``measures`` (of another
program) with ``segmentation`` (its labels, or None).  The image
``t1w_uncorrected`` may be the scan itself or what the check of the program made of it: both give
the same array."""


@dataclass(frozen=True)
class InputKind:
    """What models of one kind see of a scan.

    Attributes
    ----------
    name : str
        ``input.kind`` in a bundle's metadata.
    roles : tuple of str
        Files that a prediction is given: those that the arrays are prepared from, and those that
        an explanation is painted on.
    derivatives : dict
        Role of each file that the arrays are prepared from → entities of its name in the output
        dataset, None for the scan itself.  Empty if they do not stand there, so that nothing can
        be trained on them.
    prepared_by : str
        ``module:function`` that takes the ``input`` block of a bundle and the files by role and
        returns a `PreparedInput`.
    smallest_axis : int
        Fewest voxels along an axis that the networks can halve.
    is_table : bool
        A row of numbers, not an image.
    fixed_voxels : bool
        Voxels keep their size: another shape is another box about the brain.
    native : bool
        In the person's own space: thick slices are taken as they are, without registration, and a
        scan of thin ones can be cut into such scans.
    takes_graph : bool
        Takes the connectivity of the session beside the image, with a matrix for `CONNECTIVITY`.
    gives_age : bool
        False for what a generator of maps learns from.
    elsewhere : bool
        What other programs measured: no image is prepared for it.
    """

    name: str
    roles: tuple[str, ...]
    derivatives: Mapping[str, Mapping[str, str] | None]
    prepared_by: str
    smallest_axis: int = 1
    is_table: bool = False
    fixed_voxels: bool = False
    native: bool = False
    takes_graph: bool = False
    gives_age: bool = True
    elsewhere: bool = False

    @property
    def is_aligned(self) -> bool:
        """Whether the input shows the brain aligned with the template by the affine alone.

        Its proportions are kept, as the papers of Systems B and SFCN have it; a deformation would
        take most of the ageing away.
        """
        return 't1w' in self.roles

    @property
    def is_segmented(self) -> bool:
        """Whether the input is what the segmentation network measured."""
        return 'region_volumes' in self.roles

    @property
    def in_own_space(self) -> bool:
        """Whether all that it takes lies in the person's own space: no registration is needed."""
        return bool(self.roles) and set(self.roles) <= _OWN_SPACE

    def derivative_paths(
        self, scan: Mapping[str, str], space: str | None, modality: str = 't1w'
    ) -> dict[str, PurePosixPath | None]:
        """Return where the derivatives of a scan are in the output dataset, by role.

        Parameters
        ----------
        scan : mapping
            Entities of the scan.
        space : str or None
            Space of the bundle's grid.
        modality : str
            One of `MODALITIES`.

        Returns
        -------
        dict
            Role → relative path, None for the scan itself.
        """
        named = {'space': space, 'desc': MODALITIES[modality]}
        return {
            role: None
            if entities is None
            else derivative_path(
                {**scan, **{k: named[k] if v == DECLARED else v for k, v in entities.items()}},
                'anat',
            )
            for role, entities in self.derivatives.items()
        }

    def prepare(self, declared: Mapping[str, Any], files: Files) -> PreparedInput:
        """Prepare the arrays of one scan; see `prepare_input`."""
        module, _, function = self.prepared_by.partition(':')
        prepared: PreparedInput = getattr(import_module(module), function)(declared, files)
        return prepared


_ARRAYS = 'bids_brainage.inputs.arrays'

KINDS = {
    kind.name: kind
    for kind in (
        InputKind(
            'modulated_gm',
            roles=('gm_modulated',),
            derivatives={'gm_modulated': _MODULATED},
            prepared_by=f'{_ARRAYS}:modulated_gm',
            smallest_axis=17,
        ),
        InputKind(
            'region_volumes',
            roles=('region_volumes', 'regions'),
            derivatives={'region_volumes': _REGIONS},
            prepared_by=f'{_ARRAYS}:region_volumes',
            is_table=True,
        ),
        InputKind(
            't1w_brain',
            roles=('t1w',),
            derivatives={'t1w': _ALIGNED},
            prepared_by=f'{_ARRAYS}:t1w_brain',
            smallest_axis=32,
        ),
        InputKind(
            't1w_clinical',
            roles=('t1w_uncorrected', 'mask_native'),
            derivatives={'t1w_uncorrected': None, 'mask_native': _MASK},
            prepared_by=f'{_ARRAYS}:t1w_clinical',
            smallest_axis=13,
            fixed_voxels=True,
            native=True,
        ),
        InputKind(
            't1w_connectivity',
            roles=('t1w', 'structures'),
            derivatives={'t1w': _ALIGNED},
            prepared_by=f'{_ARRAYS}:t1w_connectivity',
            smallest_axis=32,
            takes_graph=True,
        ),
        InputKind(
            't1w_sfcn',
            roles=('t1w',),
            derivatives={'t1w': _ALIGNED},
            prepared_by=f'{_ARRAYS}:t1w_sfcn',
            smallest_axis=32,
        ),
        InputKind(
            't1w_brainagenext',
            roles=('t1w',),
            derivatives={'t1w': _ALIGNED},
            prepared_by=f'{_ARRAYS}:t1w_brainagenext',
            smallest_axis=32,
            fixed_voxels=True,
        ),
        InputKind(
            't1w_pyment',
            roles=('t1w',),
            derivatives={'t1w': _ALIGNED},
            prepared_by=f'{_ARRAYS}:t1w_pyment',
            smallest_axis=32,
        ),
        InputKind(
            't1w_synthba',
            roles=('t1w',),
            derivatives={'t1w': _ALIGNED},
            prepared_by=f'{_ARRAYS}:t1w_synthba',
            smallest_axis=32,
        ),
        InputKind(
            'volumes',
            roles=('volumes',),
            derivatives={},
            prepared_by=f'{_ARRAYS}:volumes',
            is_table=True,
        ),
        InputKind(
            'measures',
            roles=('measures', 'segmentation'),
            derivatives={},
            prepared_by='bids_brainage.inputs.measures:measures',
            is_table=True,
            elsewhere=True,
        ),
        InputKind(
            'cbv_pair',
            roles=('t1w', 'cbv'),
            derivatives={'t1w': _ALIGNED, 'cbv': {**_ALIGNED, 'desc': MODALITIES['aicbv']}},
            prepared_by='bids_brainage.inputs.cbv:cbv_pair',
            gives_age=False,
        ),
    )
}
"""All kinds by name."""


def age_kinds() -> list[str]:
    """Return the kinds that a bundle may declare, by name."""
    return [name for name, kind in KINDS.items() if kind.gives_age]


def kind_of(declared: Mapping[str, Any]) -> InputKind:
    """Return the record of an ``input`` block.

    Raises
    ------
    BundleError
        If the kind is unknown.
    """
    name = declared['kind']
    if name not in KINDS:
        raise BundleError(
            f'model input kind {name!r} is unknown; known are {", ".join(age_kinds())}. '
            'The bundle was made for a newer version of this program.'
        )
    return KINDS[name]


def learns_graph(declared: Mapping[str, Any]) -> bool:
    """Tell whether a model of an ``input`` block learns from connectivity, too."""
    return kind_of(declared).takes_graph and not declared.get('structural_only', False)


def sees_other_maps(declared: Mapping[str, Any], measures: Mapping[str, Any]) -> bool:
    """Tell whether a model of maps has learnt from those of another program than it is shown."""
    if declared['kind'] != 'modulated_gm':
        return False
    from bids_brainage.inputs.grey_matter import is_of_others

    return is_of_others(declared, measures)


def prepare_input(declared: Mapping[str, Any], files: Files) -> PreparedInput:
    """Prepare the input of a model: the one way for training and prediction.

    Parameters
    ----------
    declared : mapping
        The ``input`` block of the bundle's metadata.
    files : mapping
        Role → file.

    Returns
    -------
    PreparedInput

    Raises
    ------
    MissingInputError
        If a derivative that the model needs is not there.
    BundleError
        If no preparation of this kind is known.
    """
    return kind_of(declared).prepare(declared, files)
