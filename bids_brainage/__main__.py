"""Run the command line with ``python -m bids_brainage``."""

from bids_brainage.cli.main import main

raise SystemExit(main())
