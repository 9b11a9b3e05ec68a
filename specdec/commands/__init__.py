"""One file per command of `specdec`; each is imported when it is called (see specdec/cli.py)."""
