"""Every file name, table and description of the output dataset."""

from bids_brainage.names import derivative_path, model_label, parse_name
from bids_brainage.outputs.citation import write_citations
from bids_brainage.outputs.dataset import Container, check_output, write_dataset_files
from bids_brainage.outputs.files import write_json, write_text, write_tsv
from bids_brainage.outputs.provenance import config_hash, new_run_id, sha256_file
from bids_brainage.outputs.status import StatusLog
from bids_brainage.outputs.tables import (
    brainage_row,
    collect_brainage,
    read_brainage,
    write_brainage,
    write_sessions_summary,
)

__all__ = [
    'Container',
    'StatusLog',
    'brainage_row',
    'check_output',
    'collect_brainage',
    'config_hash',
    'derivative_path',
    'model_label',
    'new_run_id',
    'parse_name',
    'read_brainage',
    'sha256_file',
    'write_brainage',
    'write_citations',
    'write_dataset_files',
    'write_json',
    'write_sessions_summary',
    'write_text',
    'write_tsv',
]
