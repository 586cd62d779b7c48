"""Statistics on predicted ages: accuracy, change, reliability, cohorts, calibration.

Pure functions on arrays and data frames; no file names, no imaging, no torch.  A quantity
that may be undefined is a :class:`~bids_brainage.statistics.result.Stat`, which holds either
a value or the reason why there is none.
"""
