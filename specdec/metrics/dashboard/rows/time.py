"""What a step's time and memory go into."""

from specdec.metrics.dashboard.base import WORKER, Panel, Query, Row, gauge, quantile, rate, ratio

PHASE = "specdec_phase_seconds"
TIME = Row(
    "Time and memory",
    (
        Panel(
            "Time of a step by phase",
            "timeseries",
            (Query(ratio(f"{PHASE}_sum", f"{PHASE}_count", "phase", where=WORKER), "{{phase}}"),),
            "Means, stacked: the target's forward pass, verifying, drafting. Verifying should be a small part; where "
            "drafting takes as long as the target, fewer drafts serve better.",
            "s",
            stacked=True,
        ),
        Panel(
            "Time of a step by phase: median",
            "timeseries",
            (Query(quantile(0.5, PHASE, "phase", where=WORKER), "{{phase}}"),),
            "Half the engine's steps take no longer.",
            "s",
        ),
        Panel(
            "Time of a step by phase: 95 %",
            "timeseries",
            (Query(quantile(0.95, PHASE, "phase", where=WORKER), "{{phase}}"),),
            "One step in twenty takes longer.",
            "s",
        ),
        Panel(
            "Memory for draft rows",
            "timeseries",
            (Query(gauge("specdec_draft_rows_bytes"), "draft rows"),),
            "Kept logits that drafts were drawn from: requests × drafts × vocabulary × bytes of a logit. Bounded by "
            "drafts.kept_mib.",
            "bytes",
        ),
        Panel(
            "Lost draft rows",
            "timeseries",
            (Query(rate("specdec_lost_draft_rows_total", "tenant"), "{{tenant}}"),),
            "Drafts a second that were verified as if they were certain, their rows being gone.",
        ),
        Panel(
            "Steering programs",
            "timeseries",
            (Query(gauge("specdec_steering_programs"), "programs"),),
            "Different steering programs of the running requests. At steering.max_programs, later ones wait.",
        ),
    ),
)
