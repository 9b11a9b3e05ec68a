"""Where the run's progress and tables go."""

import sys

from rich.console import Console

console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
