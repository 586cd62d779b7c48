"""Discovery of images, ages and metadata in a BIDS dataset."""

from bids_brainage.dataset.ages import Demographics, parse_age
from bids_brainage.dataset.discovery import check_dataset, find_scans, participants_of
from bids_brainage.dataset.filters import check_filters, read_filters
from bids_brainage.dataset.scan import Age, Scan

__all__ = [
    'Age',
    'Demographics',
    'Scan',
    'check_dataset',
    'check_filters',
    'find_scans',
    'parse_age',
    'participants_of',
    'read_filters',
]
