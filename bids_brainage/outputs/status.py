"""Table of what each step of a run did, ``logs/<run>/status.tsv``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Any

from bids_brainage.errors import WorkflowError
from bids_brainage.names import log_dir
from bids_brainage.outputs.files import write_json, write_tsv
from bids_brainage.outputs.tables import column_names, data_dictionary

STATUSES = ('ok', 'failed', 'skipped')


class StatusLog:
    """Collect outcomes and keep ``status.tsv`` up to date after each of them.

    Parameters
    ----------
    output_dir : path
        Output dataset.
    run : str
        Run identifier (`bids_brainage.outputs.provenance.new_run_id`).
    """

    def __init__(self, output_dir: str | Path, run: str) -> None:
        self.path = Path(output_dir) / log_dir(run) / 'status.tsv'
        self.rows: list[dict[str, Any]] = []
        self._lock = Lock()

    def add(
        self,
        source: str,
        step: str,
        status: str,
        *,
        model: str | None = None,
        seconds: float | None = None,
        message: str | None = None,
    ) -> None:
        """Record one outcome and rewrite the table.

        Raises
        ------
        WorkflowError
            ``status`` is none of ``ok``, ``failed``, ``skipped``.
        """
        if status not in STATUSES:
            raise WorkflowError(f'Status {status!r} of step {step}: expected one of {STATUSES}.')
        row = {
            'source': source,
            'model': model,
            'step': step,
            'status': status,
            'seconds': seconds,
            'message': message,
        }
        with self._lock:
            self.rows.append(row)
            self._write()

    def write(self) -> None:
        """Write the table (with headers only when nothing was recorded)."""
        with self._lock:
            self._write()

    def counts(self) -> dict[str, int]:
        """Return how many outcomes were ok, failed and skipped."""
        seen = Counter(row['status'] for row in self.rows)
        return {status: seen[status] for status in STATUSES}

    def _write(self) -> None:
        write_tsv(self.path, self.rows, column_names('status'))
        write_json(self.path.with_suffix('.json'), data_dictionary('status'))
