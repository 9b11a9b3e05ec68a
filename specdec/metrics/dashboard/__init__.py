"""What Prometheus and Grafana need to show and watch our figures: a dashboard, recording rules and alerts, as files."""

from specdec.metrics.dashboard.write import write_files

__all__ = ["write_files"]
