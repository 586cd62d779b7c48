"""The levels: what each run does, from the options to the reports."""
