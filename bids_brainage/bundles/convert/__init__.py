"""Networks that others publish, made into bundles from a user's own copy of their weights.

One module for each network holds what is known of it; `record` says what that is, `read` opens
the file, `check` compares it with the architecture and `make` writes the bundle.  Nothing is
downloaded, and no code that a file may hold is run.
"""
