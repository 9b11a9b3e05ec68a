"""What a server does at the moment, in a terminal: scrapes of its /metrics, figures of what happened between two of
them, and a table."""
