"""Figures worked out by hand, and the table that shows them."""

import pytest
from rich.console import Console

from specdec.metrics.scrape import Sums, parse
from specdec.watch.figures import Position, State, figures, state
from specdec.watch.table import render

TEXT = """\
# TYPE specdec_reached_draft_tokens counter
specdec_reached_draft_tokens_total{position="0",tenant=""} 6
specdec_reached_draft_tokens_total{position="0",tenant="a"} 4
specdec_reached_draft_tokens_total{position="1",tenant=""} 8
specdec_reached_draft_tokens_total{position="2",tenant=""} 0
# TYPE specdec_accepted_tokens counter
specdec_accepted_tokens_total{position="0",tenant=""} 5
specdec_accepted_tokens_total{position="0",tenant="a"} 3
specdec_accepted_tokens_total{position="1",tenant=""} 2
# TYPE specdec_expected_acceptance_sum counter
specdec_expected_acceptance_sum_total{position="0",tenant=""} 7.5
specdec_expected_acceptance_sum_total{position="1",tenant=""} 3
# TYPE specdec_exact_acceptance_sum counter
specdec_exact_acceptance_sum_total{position="0",tenant=""} 1.5
# TYPE specdec_exact_acceptance_rows counter
specdec_exact_acceptance_rows_total{position="0",tenant=""} 2
# TYPE specdec_verify_steps counter
specdec_verify_steps_total 10
# TYPE specdec_undrafted_steps counter
specdec_undrafted_steps_total 30
# TYPE specdec_lost_draft_rows counter
specdec_lost_draft_rows_total 3
# TYPE specdec_draft_tokens counter
specdec_draft_tokens_total{position="0"} 10
specdec_draft_tokens_total{position="1"} 10
specdec_draft_tokens_total{position="2"} 10
# TYPE specdec_tokens_per_step histogram
specdec_tokens_per_step_bucket{le="+Inf"} 10
specdec_tokens_per_step_sum 20
specdec_tokens_per_step_count 10
# TYPE specdec_target_entropy_nats histogram
specdec_target_entropy_nats_bucket{le="+Inf"} 4
specdec_target_entropy_nats_sum 5
specdec_target_entropy_nats_count 4
# TYPE specdec_phase_seconds histogram
specdec_phase_seconds_bucket{phase="verify",le="+Inf"} 4
specdec_phase_seconds_sum{phase="verify"} 0.01
specdec_phase_seconds_count{phase="verify"} 4
# TYPE specdec_draft_rows_bytes gauge
specdec_draft_rows_bytes 3145728
# TYPE specdec_drafts_per_step gauge
specdec_drafts_per_step 3
# TYPE specdec_steering_programs gauge
specdec_steering_programs 2
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0"} 100
vllm:generation_tokens_total{engine="1"} 20
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0"} 5
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0"} 1
"""


def test_by_hand() -> None:
    scraped = parse(TEXT)
    found = figures(Sums(scraped.values, 4.0))
    assert found.positions == {
        "0": Position(0.8, 0.75, 0.75),
        "1": Position(0.25, 0.375, None),
        "2": Position(None, None, None),
    }
    assert (found.length, found.tokens_per_second, found.entropy) == (2.0, 30.0, 1.25)
    assert (found.undrafted, found.lost) == (0.75, pytest.approx(0.1))
    assert found.phases == {"target": None, "verify": 0.0025, "draft": None}
    assert state(scraped) == State(running=5, waiting=1, drafts=3, rows=3145728, programs=2)


def shown(*arguments: object, **options: object) -> str:
    console = Console(width=80, record=True)
    console.print(render(*arguments, **options))  # type: ignore[arg-type]
    return console.export_text()


def test_the_table_shows_lately_beside_ever() -> None:
    scraped = parse(TEXT)
    nothing = figures(Sums(dict.fromkeys(scraped.values, 0.0), 2.0))
    text = shown(nothing, figures(scraped), state(scraped), 600.0)
    assert "last 600 s" in text and "…" not in text
    first = next(line for line in text.splitlines() if line.split()[:1] == ["0"])
    assert first.split()[1:3] == ["–", "–"] and first.split()[-3:] == ["0.800", "0.750", "0.750"]
    assert "2.50 ms" in text and "3.0 MiB" in text


def test_no_drafts_yet_and_notes_are_said() -> None:
    nothing = figures(Sums({}, 2.0))
    text = shown(nothing, figures(Sums({})), State(0, 0, 0, 0, 0), 2.0, "No server answers")
    assert "No drafts yet" in text and "No server answers" in text and "position" not in text
