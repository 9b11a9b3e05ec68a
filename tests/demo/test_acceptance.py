"""Acceptance figures from the text that a server's /metrics answers, worked out by hand."""

import pytest

from specdec.demo.acceptance import Acceptance, acceptance_in
from specdec.metrics.scrape import Sums, parse

VLLM = """\
# TYPE vllm:spec_decode_num_drafts counter
vllm:spec_decode_num_drafts_total{{engine="0",model_name="m"}} {drafts}
# TYPE vllm:spec_decode_num_drafts_created gauge
vllm:spec_decode_num_drafts_created{{engine="0",model_name="m"}} 1.7e+09
# TYPE vllm:spec_decode_num_accepted_tokens counter
vllm:spec_decode_num_accepted_tokens_total{{engine="0",model_name="m"}} {accepted}
# TYPE vllm:spec_decode_num_accepted_tokens_per_pos counter
vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",model_name="m",position="0"}} {first}
vllm:spec_decode_num_accepted_tokens_per_pos_total{{engine="0",model_name="m",position="1"}} {second}
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{{engine="0",model_name="m"}} 99
"""
OURS = """\
# TYPE specdec_reached_draft_tokens counter
specdec_reached_draft_tokens_total{position="0"} 10
specdec_reached_draft_tokens_total{position="1"} 8
specdec_reached_draft_tokens_total{position="2"} 0
# TYPE specdec_accepted_tokens counter
specdec_accepted_tokens_total{position="0"} 8
specdec_accepted_tokens_total{position="1"} 2
specdec_accepted_tokens_total{position="2"} 0
# TYPE specdec_expected_acceptance_sum counter
specdec_expected_acceptance_sum_total{position="0"} 7.5
specdec_expected_acceptance_sum_total{position="1"} 2.8
specdec_expected_acceptance_sum_total{position="2"} 0
# TYPE specdec_tokens_per_step histogram
specdec_tokens_per_step_bucket{le="+Inf"} 10
specdec_tokens_per_step_sum 20
specdec_tokens_per_step_count 10
"""
BEFORE = VLLM.format(drafts=100, accepted=150, first=90, second=60)
AFTER = VLLM.format(drafts=110, accepted=160, first=98, second=62)


def test_figures_are_of_what_happened_between_the_scrapes():
    """10 drafts, 10 tokens accepted: 8 at the first position, 2 at the second, nothing reached the third."""
    found = acceptance_in(parse(AFTER + OURS).since(parse(BEFORE)))
    assert found.length == pytest.approx(2.0)
    assert found.accepted == pytest.approx((0.8, 0.2))
    assert found.expected == pytest.approx((0.75, 0.35))
    assert found.observed == pytest.approx((0.8, 0.25))


def test_stock_servers_have_no_figures_of_ours():
    found = acceptance_in(parse(AFTER).since(parse(BEFORE)))
    assert found.length == pytest.approx(2.0) and found.expected is None and found.observed is None


def test_nothing_drafted():
    assert acceptance_in(parse(AFTER).since(parse(AFTER))) == Acceptance()
    assert acceptance_in(Sums({})) == Acceptance()
