"""Figures that several rows show, as PromQL."""

from specdec.metrics.dashboard.base import WORKER, rate, ratio

LENGTH = ratio("specdec_tokens_per_step_sum", "specdec_tokens_per_step_count")
UNDRAFTED = (
    f"{rate('specdec_undrafted_steps_total')} / "
    f"({rate('specdec_undrafted_steps_total')} + {rate('specdec_verify_steps_total')})"
)
LOST = ratio("specdec_lost_draft_rows_total", "specdec_draft_tokens_total")
OBSERVED = ratio("specdec_accepted_tokens_total", "specdec_reached_draft_tokens_total", "position")
EXPECTED = ratio("specdec_expected_acceptance_sum_total", "specdec_reached_draft_tokens_total", "position")
EXACT = ratio("specdec_exact_acceptance_sum_total", "specdec_exact_acceptance_rows_total", "position")
DRAFTS = f"avg (specdec_drafts_per_step{{{WORKER}}})"
BY_ENTROPY = ratio("specdec_entropy_accepted_tokens_total", "specdec_entropy_reached_draft_tokens_total", "entropy")
