"""The tables of change over time and of test–retest agreement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_brainage.statistics.bins import worst_bin
from bids_brainage.statistics.bootstrap import Bootstrap
from bids_brainage.statistics.longitudinal import (
    change_error,
    change_limits,
    person_slopes,
    reliable_change,
    usable_pairs,
)
from bids_brainage.statistics.pairing import Pairs
from bids_brainage.statistics.reliability import (
    LEAST_PAIRS,
    reliability,
    reliability_word,
    sigma_seed,
)
from bids_brainage.statistics.result import Stat, flatten, undefined

if TYPE_CHECKING:
    import pandas as pd

    from bids_brainage.statistics.tables.options import GroupOptions

Models = Mapping[str, 'tuple[pd.DataFrame, Pairs]']

MAX_SESSION_SETS = 20
"""Largest number of separately listed pairs of session labels."""

POOLED = 'sessions'
"""Set of the first session pair of every person, whatever the labels."""

LONGITUDINAL_COLUMNS = [
    'row',
    'participant_id',
    'model',
    'n_sessions',
    'session_first',
    'session_last',
    'interval_years',
    'delta_age',
    'delta_predicted',
    'change_error',
    'annual_rate',
    'gap_slope',
    'gap_slope_se',
    'reliable_change_index',
    'reliable_change',
    'n_pairs',
    'n_excluded_pairs',
    *[f'{k}{e}' for k in ('mde', 'made', 'mmade', 'mmade_all') for e in ('', '_low', '_high')],
    'mmade_bin',
    'mmade_excluded_bins',
    'reason',
]


def reliability_table(models: Models) -> tuple[pd.DataFrame, dict[str, Stat]]:
    """Compute test–retest statistics per model and set of sessions.

    Returns
    -------
    table : DataFrame
        One row per model and set: all session pairs (one per person), pairs of session labels
        that at least two people have, runs; and one row per architecture with several
        trainings.
    sems : dict of str to Stat
        Standard error of one scan of each model, years, for reliable change.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    sems: dict[str, Stat] = {}
    for model, (one, pairs) in models.items():
        sets = _retest_sets(pairs.retest)
        sems[model] = undefined('no test-retest pairs of this model')
        if not sets:
            none = {'model': model, 'session_set': POOLED, 'n': 0, 'n_sessions': 0}
            rows.append(none | {'reason': 'no test-retest pairs'})
        predicted = one['predicted_age'].to_numpy(np.float64)
        for name, table in sets.items():
            scores = predicted[table[['first', 'second']].to_numpy()]
            stats = reliability(scores, table['days'])
            if not sems[model] and stats['sem']:
                few = f'{len(scores)} test-retest pairs; {LEAST_PAIRS} are needed'
                sems[model] = stats['sem'] if len(scores) >= LEAST_PAIRS else undefined(few)
            rows.append(_reliability_row(model, name, len(scores), stats))
    rows += _seed_rows(models)
    return pd.DataFrame(rows, columns=_reliability_columns()), sems


def _reliability_columns() -> list[str]:
    """Names of the columns of the reliability table in order."""
    icc = [f'icc_{k}_1{end}' for k in (3, 2) for end in ('', '_low', '_high')]
    return [
        'model',
        'session_set',
        'n',
        'n_sessions',
        *icc,
        'agreement',
        'sigma_scan',
        'sigma_scan_pop',
        'mu_d',
        'sigma_d',
        *[f'{k}{end}' for k in ('sem', 'sdc95') for end in ('', '_low', '_high')],
        'cv_percent',
        'loa_low',
        'loa_high',
        'median_interval_days',
        'ms_between',
        'ms_residual',
        'sigma_seed',
        'reason',
    ]


def _reliability_row(model: str, name: str, n: int, stats: dict[str, Stat]) -> dict[str, Any]:
    """Lay out the statistics of one set."""
    row = {'model': model, 'session_set': name, 'n': n, 'n_sessions': 2, **flatten(stats)}
    for key in ('icc_3_1', 'icc_2_1', 'sem', 'sdc95'):
        row[f'{key}_low'], row[f'{key}_high'] = stats[key].low, stats[key].high
    icc = stats['icc_3_1'] if n >= LEAST_PAIRS else None
    row['agreement'] = reliability_word(icc.get()) if icc else None
    return row


def _retest_sets(retest: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Group test–retest pairs into sets with one pair per person."""
    sets: dict[str, pd.DataFrame] = {}
    between = retest[retest['kind'] == 'sessions']
    if len(between):
        sets[POOLED] = between.drop_duplicates('person')
        label = between['session_a'] + '+' + between['session_b']
        sizes = between.groupby(label)['person'].nunique().sort_values(ascending=False)
        shared = sizes[sizes > 1].head(MAX_SESSION_SETS)
        for name in sorted(shared.index) if len(sizes) > 1 else []:
            sets[str(name)] = between[label == name].drop_duplicates('person')
    runs = retest[retest['kind'] == 'runs']
    if len(runs):
        sets['runs'] = runs.drop_duplicates('person')
    return sets


def _seed_rows(models: Models) -> list[dict[str, Any]]:
    """Spread over several trainings (tags) of one architecture on the same images."""
    import pandas as pd

    by_arch: dict[str, list[str]] = {}
    for model in models:
        by_arch.setdefault(model.split('.', 1)[0], []).append(model)
    rows: list[dict[str, Any]] = []
    for arch, names in by_arch.items():
        if len(names) > 1:
            columns = [models[m][0].set_index('source')['predicted_age'] for m in names]
            scores = pd.concat(columns, axis=1, join='inner').to_numpy(np.float64)
            stat = sigma_seed(scores)
            head = {'model': arch, 'session_set': 'trainings: ' + ', '.join(names)}
            rows.append({**head, 'n': len(scores), **flatten({'sigma_seed': stat})})
    return rows


def longitudinal_table(
    models: Models, sems: Mapping[str, Stat], bootstrap: Bootstrap, options: GroupOptions
) -> pd.DataFrame:
    """Compute change per person, first to last visit, and a summary row per model.

    Summaries are over consecutive visits; visits that repeat the one before within the
    test–retest limit are not change.
    """
    import pandas as pd

    parts = []
    for model, (one, pairs) in models.items():
        visits = pairs.visits.assign(predicted=_visit_means(one, len(pairs.visits)))
        persons = _person_rows(one, visits, pairs, sems[model])
        summary = _summary(visits, pairs, bootstrap, options)
        summary['n_sessions'] = int((visits['role'] == 'longitudinal').sum())
        parts.append(persons.assign(row='participant', model=model))
        parts.append(pd.DataFrame([summary | {'row': 'summary', 'model': model}]))
    parts = [part.reindex(columns=LONGITUDINAL_COLUMNS).astype(object) for part in parts]
    if not parts:
        return pd.DataFrame(columns=LONGITUDINAL_COLUMNS)
    return pd.concat(parts, ignore_index=True).infer_objects()


def _visit_means(one: pd.DataFrame, n_visits: int) -> np.ndarray:
    """Average the predictions of the scans of each visit, years."""
    visit = one['visit'].to_numpy()
    total = np.bincount(visit, one['predicted_age'].to_numpy(np.float64), minlength=n_visits)
    return total / np.bincount(visit, minlength=n_visits)


def _person_rows(one: pd.DataFrame, visits: pd.DataFrame, pairs: Pairs, sem: Stat) -> pd.DataFrame:
    """Build one row per person with at least two longitudinal visits."""
    import pandas as pd

    kept = visits[visits['role'] == 'longitudinal']
    several = kept['person'].isin(pairs.longitudinal['person'].unique())
    kept = kept[several].sort_values(['person', 'years'], kind='stable')
    codes, persons = pd.factorize(kept['person'])
    slopes = person_slopes(codes, kept['years'], kept['predicted'], len(persons))
    first = kept.drop_duplicates('person').reset_index(drop=True)
    last = kept.drop_duplicates('person', keep='last').reset_index(drop=True)
    years = (last['years'] - first['years']).to_numpy(np.float64)
    moved = (last['predicted'] - first['predicted']).to_numpy(np.float64)
    error = change_error(years, moved)
    index, exceeds = reliable_change(error, sem)
    names = one.drop_duplicates('person').set_index('person')['participant_id']
    table = pd.DataFrame(
        {
            'participant_id': names.reindex(persons).to_numpy(object),
            'n_sessions': slopes.n_sessions,
            'session_first': first['session'].to_numpy(object),
            'session_last': last['session'].to_numpy(object),
            'interval_years': years,
            'delta_age': years,
            'delta_predicted': moved,
            'change_error': error,
            'annual_rate': slopes.annual_rate,
            'gap_slope': slopes.gap_slope,
            'gap_slope_se': slopes.gap_slope_se,
            'reliable_change_index': index,
            'reliable_change': [None if np.isnan(x) else bool(x) for x in exceeds],
        }
    )
    no_error = 'gap_slope_se: two sessions leave no residual'
    unknown = [no_error if n < 3 else None for n in slopes.n_sessions.tolist()]
    if sem.reason:
        change = f'reliable_change: {sem.reason}'
        unknown = [f'{x}; {change}' if x else change for x in unknown]
    table['reason'] = unknown
    return table


def _summary(
    visits: pd.DataFrame, pairs: Pairs, bootstrap: Bootstrap, options: GroupOptions
) -> dict[str, Any]:
    """Summarise the error of change of one model over consecutive visits."""
    first = pairs.longitudinal['first'].to_numpy(np.int64)
    second = pairs.longitudinal['second'].to_numpy(np.int64)
    predicted = visits['predicted'].to_numpy(np.float64)
    age = visits['age'].to_numpy(np.float64)
    years = pairs.longitudinal['years'].to_numpy(np.float64)
    moved = predicted[second] - predicted[first]
    usable = usable_pairs(years, moved)
    stats = change_limits(
        age[first], years, moved, pairs.longitudinal['person'], bootstrap, options.min_bin_n
    )
    return {
        'n_pairs': int(usable.sum()),
        'n_excluded_pairs': int((~usable).sum()),
        **flatten(stats, limits=True),
        **_worst(age[first][usable], change_error(years, moved)[usable], options),
    }


def _worst(age: np.ndarray, error: np.ndarray, options: GroupOptions) -> dict[str, Any]:
    """Name the bin of baseline age that sets the worst-bin error, and the bins left out."""
    worst = worst_bin(age, np.abs(error), min_bin_n=options.min_bin_n)
    return {'mmade_bin': worst.bin, 'mmade_excluded_bins': '; '.join(worst.excluded) or None}
