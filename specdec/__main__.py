"""`python -m specdec`: the command, also for `accelerate launch -m specdec train ...`."""

from specdec.cli import main

main()
