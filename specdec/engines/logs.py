"""What a process that ended by itself has to say."""

from pathlib import Path


def last_words(log: Path, lines: int = 6) -> str:
    """Where the log is, the first exception named in it (later ones follow from it), and its last lines."""
    text = log.read_text("utf-8", "replace").strip().splitlines()
    errors = [line for line in text if "Error" in line and "Traceback" not in line]
    tail = errors[:1] + text[-lines:] if errors else text[-lines:]
    return f"Its log is {log}; the end of it: " + " | ".join(line.strip() for line in tail)
