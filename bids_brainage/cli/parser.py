"""Command line of ``bids_brainage``.

Imports nothing but argparse, the version and the name of the default model until the options are
read, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bids_brainage import __version__
from bids_brainage.bundles.places import DEFAULT_MODELS
from bids_brainage.cli.group_options import add_group_options
from bids_brainage.cli.participant_options import add_participant_options
from bids_brainage.cli.train_options import add_train_options

if TYPE_CHECKING:
    pass

PROGRAM = 'bids_brainage'
USAGE = f'{PROGRAM} bids_dir output_dir {{participant,group,train}} [options]; --help lists them'
"""One line, so that what is wrong with an option stands alone below it."""


@dataclass(frozen=True)
class Level:
    """One analysis level: its name, a line of help, and the options only it has."""

    name: str
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]


def level_options(level: Level) -> dict[str, str]:
    """Return the options that a level adds: destination → long spelling."""
    own = argparse.ArgumentParser(add_help=False)
    level.add_options(own)
    return {
        action.dest: next(name for name in action.option_strings if name.startswith('--'))
        for action in own._actions
    }


class _OneMetavar(argparse.HelpFormatter):
    """Help that states the value of an option once, after all its spellings."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        default = self._get_default_metavar_for_optional(action)
        return f'{", ".join(action.option_strings)} {self._format_args(action, default)}'


def build_parser(*, positionals: bool = True) -> argparse.ArgumentParser:
    """Build the parser; values stay text, so that all problems can be told together."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description='Estimate how old the brains of a BIDS dataset look, and why.',
        usage=USAGE,
        epilog=f'{PROGRAM} convert: weights that others publish, made into a bundle; '
        f'{PROGRAM} convert --help lists them.',
        argument_default=None,
        formatter_class=_OneMetavar,
        allow_abbrev=False,
    )
    if positionals:
        parser.add_argument('bids_dir', help='root of the raw BIDS dataset')
        parser.add_argument('output_dir', help='output (derivative) dataset')
        parser.add_argument(
            'analysis_level',
            choices=[level.name for level in LEVELS],
            help='; '.join(f'{level.name}: {level.summary}' for level in LEVELS),
        )
    _add_selection(parser)
    _add_models(parser)
    for level in LEVELS:
        level.add_options(parser)
    _add_resources(parser)
    _add_other(parser)
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('selection')
    group.add_argument(
        '--participant-label',
        '--participant_label',
        nargs='+',
        metavar='LABEL',
        help='participants, with or without sub- (default: all with images)',
    )
    group.add_argument(
        '--session-label',
        '--session_label',
        '--session-id',
        '--session_id',
        nargs='+',
        metavar='LABEL',
        help='sessions, with or without ses- (default: all)',
    )
    group.add_argument(
        '--bids-filter-file',
        '--bids_filter_file',
        metavar='JSON',
        help='file of queries t1w and bold; null means entity absent, "*" any value',
    )
    group.add_argument(
        '--bids-database-dir',
        metavar='DIR',
        help='pybids index to use, or to make if there is none',
    )
    group.add_argument(
        '--skip-bids-validation',
        '--skip_bids_validation',
        '--skip_bids_validator',
        action='store_true',
        default=None,
        help='do not check dataset_description.json',
    )
    group.add_argument(
        '--dry-run', action='store_true', default=None, help='list what would run, write nothing'
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('models')
    group.add_argument(
        '--models',
        nargs='+',
        metavar='NAME',
        help=f'models by name, arch.tag (default: {" ".join(DEFAULT_MODELS)})',
    )
    group.add_argument(
        '--list-models',
        nargs='*',
        metavar='NAME',
        help='print the models, or all about those that are named, and end',
    )
    group.add_argument(
        '--model-dir',
        metavar='DIR',
        help='folder with model weights (environment: BIDS_BRAINAGE_MODEL_DIR)',
    )
    group.add_argument(
        '--age-column',
        metavar='NAME',
        help='column of the age in scans, sessions or participants table (default: age)',
    )
    group.add_argument(
        '--saliency',
        nargs='+',
        metavar='METHOD',
        help='explanation maps: contribution, gradcam, guided_backprop, attention, or none; '
        "participant: those to write (default: each model's own); group: those to average, "
        'where there are maps (default: all)',
    )


def _add_resources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('resources')
    group.add_argument(
        '--nprocs',
        '--n-procs',
        '--n_procs',
        '--nthreads',
        '--n-cpus',
        '--n_cpus',
        metavar='N',
        help='processes (default: CPUs allowed by affinity and cgroup)',
    )
    group.add_argument(
        '--omp-nthreads',
        metavar='N',
        help='threads per process (default: processes - 1, from 1 to 8)',
    )
    group.add_argument(
        '--mem',
        '--mem-mb',
        '--mem_mb',
        metavar='X[K|M|G|T]',
        help='memory to plan with; a bare number is MB (default: memory visible here)',
    )
    group.add_argument(
        '--mem-gb', '--mem_gb', dest='memory_gb', metavar='X', help='the same in GB'
    )
    group.add_argument(
        '--use-plugin', '--nipype-plugin-file', metavar='YAML', help='Nipype plugin settings'
    )
    group.add_argument(
        '--device',
        metavar='DEVICE',
        help='auto, cpu, cuda[:N] or mps; only auto may fall back (default: auto)',
    )
    group.add_argument('--random-seed', metavar='N', help='seed, recorded (default: 0)')
    group.add_argument(
        '--sloppy',
        action='store_true',
        default=None,
        help='low quality, for tests only; marked in the outputs',
    )


def _add_other(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('other')
    group.add_argument(
        '-w',
        '--work-dir',
        metavar='DIR',
        help='folder for intermediate files, not inside bids_dir '
        '(default: ./work, else OUTPUT_DIR/.work)',
    )
    group.add_argument(
        '--clean-workdir',
        action='store_true',
        default=None,
        help='first remove what earlier runs left of these scans in the work folder',
    )
    group.add_argument(
        '--config-file', metavar='TOML', help='settings of an earlier run; the command line wins'
    )
    group.add_argument(
        '--write-graph', action='store_true', default=None, help='write the workflow graph'
    )
    group.add_argument(
        '--stop-on-first-crash', action='store_true', default=None, help='stop at the first error'
    )
    group.add_argument(
        '--offline',
        action='store_true',
        default=None,
        help='forbid any download (environment: BIDS_BRAINAGE_OFFLINE=1)',
    )
    group.add_argument(
        '--notrack',
        action='store_true',
        default=None,
        help='accepted for scripts of other programs: there is no telemetry',
    )
    group.add_argument(
        '-v',
        '--verbose',
        dest='verbosity',
        action='count',
        help='more messages; give it up to three times',
    )
    group.add_argument(
        '--debug',
        action='store_true',
        default=None,
        help='all messages, also in the log file, with the place in the code of an error; the '
        'work folder is kept',
    )
    group.add_argument('--version', action='version', version=f'{PROGRAM} {__version__}')


LEVELS: tuple[Level, ...] = (
    Level(
        'participant',
        'predict the age of each image, with maps and reports',
        add_participant_options,
    ),
    Level('group', 'accuracy, change, reliability and group differences', add_group_options),
    Level('train', 'a new model from derivatives and ages', add_train_options),
)

NOT_NEEDED = {
    '--low-mem': 'one scan takes at most 2 GB whatever its size (6 GB with --aicbv-weights), and '
    '--mem says how much all that run side by side may take',
    '--fs-license-file': 'FreeSurfer is not used',
    '--fs-no-reconall': 'FreeSurfer is not used',
}
"""Options of programs that people know, which a run has no use for → why."""

_USED_ELSEWHERE = {'reports_only': 'group', 'reference_group': 'train', 'atlas': 'train'}
"""Options of one level that another uses, too."""


def check_foreign(arguments: Sequence[str], problems: list[str]) -> list[str]:
    """Take the options that are `NOT_NEEDED` out of the arguments, and tell why each is not.

    Underscores count as hyphens, as other programs accept both.
    """
    kept = list(arguments)
    for text in arguments:
        name = text.partition('=')[0].replace('_', '-')
        if name not in NOT_NEEDED:
            continue
        problems.append(f'{name} is not needed here, because {NOT_NEEDED[name]}: leave it out.')
        place = kept.index(text)
        takes_value = name.endswith('-file') and '=' not in text
        del kept[place : place + 1 + takes_value]
    return kept


def check_level(given: Mapping[str, object], problems: list[str]) -> None:
    """Refuse options of another level; a configuration file may hold those of all levels."""
    chosen = given['analysis_level']
    for level in LEVELS:
        own = level_options(level) if level.name != chosen else {}
        problems += [
            f'{own[name]} is an option of the {level.name} level and does nothing in a run of the '
            f'{chosen} level: leave it out.'
            for name in given
            if name in own and _USED_ELSEWHERE.get(name) != chosen
        ]
