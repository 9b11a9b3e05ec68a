"""What the kernels of every GPU backend pass: comparisons with the reference, and tests of tests/verify/.

Imported by the test_any_backend.py of each backend, whose conftest.py has the fixtures: `subject`, the kernels under
test, and `backend`, their name for specdec.verify.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specdec.sampling import SamplingBatch
from specdec.verify import VerifyOutput, reference
from tests.helpers.cases import Case, random_case
from tests.kernels.subject import Subject, run
from tests.verify.test_backends_agree import damaged
from tests.verify.test_block import (  # noqa: F401
    test_a_greedy_request_is_the_token_rule,
    test_a_step_without_drafts_says_nothing,
    test_a_weak_draft_is_made_up_for_by_the_next,
    test_equal_rows_accept_everything,
    test_nothing_behind_a_draft_of_probability_zero_is_accepted,
    test_one_draft_or_none_is_the_token_rule,
    test_one_hot_drafts_are_the_token_rule_and_said_so_once,
    test_three_outcomes_of_one_block,
)
from tests.verify.test_hand_worked import (  # noqa: F401
    test_a_token_of_probability_zero_is_never_accepted,
    test_a_token_that_the_target_likes_at_least_as_much_is_accepted,
    test_filters_hold_for_the_bonus_row,
    test_greedy,
    test_greedy_head_under_a_sampling_request,
    test_identical_distributions_always_accept,
    test_no_drafts_means_one_bonus_token,
    test_one_hot_draft,
    test_padding_and_different_counts,
    test_rejection_recovers_from_the_residual,
    test_sample_draft_draws_and_states_its_distribution,
    test_temperatures_below_1e_5_are_greedy,
    test_the_walk_stops_at_the_first_rejection,
)
from tests.verify.test_inputs import (  # noqa: F401
    test_bad_target_row_names_itself,
    test_broken_draft_row_is_rejected_and_drawn_from_the_target,
    test_empty_batch,
    test_ids_outside_the_vocabulary_are_rejected,
    test_inputs_are_never_written,
    test_parameters_out_of_range,
    test_row_of_nothing_but_minus_infinity,
    test_rows_more_than_2_to_the_31_elements_apart,
    test_strided_rows_and_other_layouts,
    test_zero_drafts_everywhere,
)
from tests.verify.test_randomness import (  # noqa: F401
    test_another_request_in_the_batch_changes_nothing,
    test_batch_composition_does_not_matter,
    test_each_request_uses_its_own_seed,
    test_same_seed_position_and_step_repeat,
    test_stated_statistics_win_over_the_requests_parameters,
    test_verify_uses_the_q_that_sampled,
)
from tests.verify.test_repair import (  # noqa: F401
    test_a_bad_draft_row_proposes_its_largest_finite_token,
    test_a_row_with_nothing_finite_gives_token_0,
    test_good_rows_are_left_as_they_are,
    test_no_requests,
    test_what_is_finite_remains_and_the_neighbours_never_notice,
)
from tests.verify.test_rows import (  # noqa: F401
    test_a_draft_without_a_row_is_one_hot,
    test_a_pool_gives_what_the_rows_give,
)

METHODS = ["token", "block"]
KINDS = ["stats", "logits", "one-hot"]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
CLOSE = {"atol": 1e-6, "rtol": 1e-6}


def check(
    subject: Subject, case: Case, method: str, known: VerifyOutput | None = None, skips: bool = False
) -> VerifyOutput:
    """The reference's tokens, and everything that is not a draw closely. known: what the reference makes of the case;
    skips: also where rows may be left unread, because nobody asks for the expected acceptance."""
    known = known or run(reference, case, method)
    out = run(subject, case, method)
    assert torch.equal(out.token_ids, known.token_ids)
    assert torch.equal(out.num_accepted, known.num_accepted)
    torch.testing.assert_close(out.expected_acceptance, known.expected_acceptance, **CLOSE)
    torch.testing.assert_close(out.acceptance_probability, known.acceptance_probability, **CLOSE, equal_nan=True)
    if skips:
        assert torch.equal(out.token_ids, run(subject, case, method, expected_acceptance=False).token_ids)
    return out


def any_shape(examples: int) -> Callable[..., None]:
    """The test of so many random steps."""

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        method=st.sampled_from(METHODS),
        seed=st.integers(0, 10**6),
        vocab=st.integers(1, 40),
        counts=st.lists(st.integers(0, 5), max_size=3),
        kind=st.sampled_from(KINDS),
        dtype=st.sampled_from(DTYPES),
        damage=st.booleans(),
    )
    def test(subject: Subject, method: str, counts: list[int], damage: bool, seed: int, **others: Any) -> None:
        case = random_case(seed, batch=len(counts), counts=counts, **others)
        check(subject, damaged(case, seed) if damage else case, method)

    return test


@pytest.mark.parametrize("kind", ["stats", "logits"])
def test_an_index_from_nowhere_is_one_hot(subject: Subject, kind: str):
    """The host does not look at indices that are on the device; there, none of them may be followed."""
    counts = [2, 2, 1]
    case = random_case(4, 60, 3, kind=kind, counts=counts, sampling=SamplingBatch.uniform(3, seed=4))
    for rows in ([0, 5, 2**40, -2, 4], [-(2**63), 1, 2, 3, 2**63 - 1]):
        wild = replace(case, draft=replace(case.draft, rows=torch.tensor(rows)))
        kept = torch.tensor([row if 0 <= row < 5 else -1 for row in rows])
        known = run(reference, replace(case, draft=replace(case.draft, rows=kept)), "block")
        check(subject, wild, "block", known)
