"""Say numbers, flags and facts about a model in plain words with units."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bids_brainage.flags import flag_table
from bids_brainage.reports.records import Result, ScanRecord

MISSING = 'n/a'
_RANK = {'stop': 0, 'caution': 1, 'note': 2}


@dataclass(frozen=True)
class Flag:
    """A warning in words; `severity` is ``stop``, ``caution`` or ``note``."""

    key: str
    label: str
    explanation: str
    advice: str
    severity: str


def describe_flag(flag: str) -> Flag:
    """Explain a flag; one without a text is shown by its own words as a caution.

    Parameters
    ----------
    flag : str
        As in the column ``qc_flag``; detail may follow the name, for example
        ``mask_volume(2100 mL)``.
    """
    key = re.split(r'[^\w-]', flag, maxsplit=1)[0]
    detail = flag[len(key) :].strip(' :=()')
    text = flag_table().get(key)
    if text is None:
        words = re.sub(r'[_-]+', ' ', flag).strip().capitalize()
        return Flag(flag, words, 'No explanation is stored for this flag.', '', 'caution')
    label = f'{text["label"]} ({detail})' if detail else text['label']
    return Flag(key, label, text['explanation'], text['advice'], text['severity'])


def describe_flags(result: Result | None) -> list[Flag]:
    """Explain all flags of a result, the most severe first."""
    return describe(result.flags if result else ())


def describe(flags: Iterable[str]) -> list[Flag]:
    """Explain flags, the most severe first."""
    found = [describe_flag(flag) for flag in flags]
    return sorted(found, key=lambda flag: _RANK[flag.severity])


def years(value: float | None, *, signed: bool = False, unit: bool = True) -> str:
    """Write years with one decimal and a true minus sign; ``n/a`` if absent."""
    if value is None or not math.isfinite(value):
        return MISSING
    rounded = round(value, 1) + 0.0
    number = f'{rounded:+.1f}' if signed and rounded else f'{rounded:.1f}'
    return number.replace('-', '−') + (' years' if unit else '')


def small_years(value: float) -> str:
    """Write signed years with two decimals, as for the share of one region."""
    return f'{value:+.2f}'.replace('-', '−')


def peers(scan: ScanRecord, result: Result) -> str:
    """Say with whom the contributions of a model with a reference age compare a person."""
    reference = result.reference_age
    if scan.age is None:
        return (
            f'people of the predicted age ({years(reference)}; the person’s own is not recorded)'
        )
    if reference is not None and abs(reference - scan.age) > 0.05:
        return f'people of {years(reference)}, the closest age that the model knows'
    return f'people of the same age ({years(reference)})'


def contributions_text(scan: ScanRecord, result: Result, total: float) -> str:
    """Say what the bars of contributions mean and how they add up to the predicted age.

    Parameters
    ----------
    scan : ScanRecord
    result : Result
    total : float
        Sum of all contributions, years.
    """
    if result.reference_age is None:
        return (
            'Years that each region adds to (right, orange) or takes from (left, blue) the '
            f'predicted age. All regions together: {small_years(total)} years.'
        )
    return (
        'Years that each region looks older (+, right, orange) or younger (−, left, blue) than in '
        f'{peers(scan, result)}. For such people the model says {years(result.base_age)} on '
        f'average (base age); all regions together make {small_years(total)} years, which gives '
        f'the predicted age of {years(result.predicted)}.'
    )


def base_label(scan: ScanRecord, result: Result) -> str:
    """Say whose age the bars of contributions start from."""
    if result.reference_age is None:
        return 'the mean of the people the model knows'
    return peers(scan, result)


def age_text(scan: ScanRecord) -> str:
    """Write the chronological age, top-coded ages as at least."""
    if scan.age is None:
        return 'not recorded'
    return f'at least {years(scan.age)}' if scan.censored else years(scan.age)


def interval_text(result: Result) -> str:
    """Write the interval with its nominal coverage."""
    if result.low is None or result.high is None:
        return MISSING
    return f'{years(result.low, unit=False)} to {years(result.high)}'


def level_text(result: Result) -> str:
    """Write the nominal coverage of the interval in percent."""
    return f'{100 * result.level:g} %' if result.level is not None else ''


def verdict(scan: ScanRecord, result: Result) -> str:
    """Say in one sentence how the predicted age compares with the chronological age."""
    if scan.age is None or result.predicted is None:
        return 'No age is recorded for this scan, so the prediction cannot be compared with it.'
    gap = result.gap if result.gap is not None else result.predicted - scan.age
    side = 'above' if gap > 0 else 'below'
    apart = f'{years(abs(gap))} {side} the chronological age'
    if round(abs(gap), 1) == 0:
        apart = 'Equal to the chronological age'
    if scan.censored:
        return f'{apart}, which is known only as {age_text(scan)}.'
    if result.low is None or result.high is None:
        return f'{apart}. The model gives no interval, so the likely size of its error is unknown.'
    if result.low <= scan.age <= result.high:
        return f'{apart}, within the error of the method: the interval contains the age.'
    return f'{apart}, more than the error of the method: the interval does not contain the age.'


def interval_meaning(result: Result) -> str:
    """Say what the interval promises; empty if the model gives none."""
    if result.low is None or result.high is None:
        return ''
    if result.facts.get('Members'):
        return 'The limits are the weighted means of those of the models it is made of.'
    share = level_text(result) if result.level is not None else 'most'
    return (
        f'An interval made this way contains the chronological age of {share} of people like '
        'those the model was calibrated on.'
    )


def made_of(result: Result) -> str:
    """Say on whom a model was trained, or of which models an age is the mean."""
    members = result.facts.get('Members')
    if isinstance(members, Mapping) and members:
        return f'Weighted mean of {" and ".join(members)}.'
    return f'Trained on: {plain(result.facts.get("TrainingPopulation"))}.'


def training_range(result: Result | None) -> tuple[float, float] | None:
    """Read the age range of the training data, years, from the model's facts."""
    span = result.facts.get('TrainingAgeRange') if result else None
    if isinstance(span, list | tuple) and len(span) == 2:
        low, high = span
        if isinstance(low, int | float) and isinstance(high, int | float):
            return float(low), float(high)
    return None


def plain(value: Any) -> str:
    """Write any stored value for a reader: lists with commas, objects as ``key: value``."""
    if value is None or value == '':
        return MISSING
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return f'{value:.6g}'
    if isinstance(value, Mapping):
        return '; '.join(f'{key}: {plain(item)}' for key, item in value.items()) or MISSING
    if isinstance(value, list | tuple):
        return ', '.join(plain(item) for item in value) or MISSING
    return str(value)


def validation_sentence(check: Mapping[str, Any]) -> str:
    """Say in one sentence how wrong the model was on one data set."""
    error, count = check.get('mae'), check.get('n')
    if not isinstance(error, int | float):
        return ''
    people = f' ({count} people)' if isinstance(count, int) else ''
    sentence = f'On {plain(check.get("dataset"))}{people}, its mean error was {years(error)}'
    baseline = check.get('median_baseline_mae')
    if isinstance(baseline, int | float):
        sentence += f'; always guessing the median age would be wrong by {years(baseline)}'
    return f'{sentence}.'


def doi_link(reference: Any) -> tuple[str, str | None]:
    """Split a reference into its text and, if it has a DOI, the address of it."""
    if isinstance(reference, Mapping):
        text, doi = plain(reference.get('text')), str(reference.get('doi') or '')
    else:
        text, doi = plain(reference), plain(reference)
    match = re.search(r'10\.\d{4,9}/[^\s"<>]+', doi)
    return text, f'https://doi.org/{match[0].rstrip(".,;)")}' if match else None


def decimal(value: Any, digits: int = 2) -> str:
    """Write a number with a fixed count of decimals and a true minus sign."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return MISSING
    return f'{value:.{digits}f}'.replace('-', '−')


def series_facts(scan: ScanRecord) -> list[tuple[str, str]]:
    """List what was measured of a functional run: a label and a number with its unit."""
    q = scan.quality
    kept, total = q.get('n_kept'), q.get('n_volumes')
    regions = f'{plain(q.get("n_regions_covered"))} of {plain(q.get("n_regions"))}'
    return [
        ('Atlas', plain(scan.side.get('Atlas'))),
        ('Volumes kept', f'{plain(kept)} of {plain(total)}'),
        ('Time kept', f'{decimal(q.get("minutes_kept"), 1)} min'),
        ('Mean framewise displacement', f'{decimal(q.get("mean_fd"))} mm'),
        ('Degrees of freedom', plain(q.get('degrees_of_freedom'))),
        ('Regions with signal', regions),
        ('Noise model', plain(q.get('confound_model'))),
    ]


def reason(scan: ScanRecord) -> str:
    """Say why a scan has no predicted age, from its messages or the states of its models."""
    if scan.messages:
        return scan.messages[0].rstrip('.') + '.'
    states = sorted({result.status for result in scan.results})
    if states:
        return f'State of all models: {", ".join(states)}. No message was recorded.'
    return 'Processing stopped before any model ran.'
