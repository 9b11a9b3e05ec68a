"""Tests of tests/verify/ that hold for every backend, on the triton kernels: worked cases, input, repair, pools."""

import pytest

from specdec.verify import triton
from tests.verify import test_block, test_hand_worked
from tests.verify.test_block import (  # noqa: F401
    test_a_greedy_request_is_the_token_rule,
    test_a_step_without_drafts_says_nothing,
    test_a_weak_draft_is_made_up_for_by_the_next,
    test_equal_rows_accept_everything,
    test_nothing_behind_a_draft_of_probability_zero_is_accepted,
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
    test_batch_composition_does_not_matter,
    test_each_request_uses_its_own_seed,
    test_same_seed_position_and_step_repeat,
    test_stated_statistics_win_over_the_requests_parameters,
    test_verify_uses_the_q_that_sampled,
)
from tests.verify.test_repair import (  # noqa: F401
    test_a_bad_draft_row_proposes_its_largest_finite_token,
    test_a_row_with_nothing_finite_gives_token_0,
    test_no_requests,
    test_what_is_finite_remains_and_the_neighbours_never_notice,
)
from tests.verify.test_rows import (  # noqa: F401
    test_a_draft_without_a_row_is_one_hot,
    test_a_pool_gives_what_the_rows_give,
)

# Requests 0 and 8 accept two drafts of test_three_outcomes_of_one_block, 1 and 11 one, 2 and 3 none.
FEW_SEEDS = [0, 1, 2, 3, 8, 11]

# More than a hundred rows each.
LARGE = {
    "test_a_greedy_request_is_the_token_rule",
    "test_a_pool_gives_what_the_rows_give",
    "test_batch_composition_does_not_matter",
    "test_each_request_uses_its_own_seed",
    "test_inputs_are_never_written",
    "test_same_seed_position_and_step_repeat",
    "test_stated_statistics_win_over_the_requests_parameters",
    "test_strided_rows_and_other_layouts",
    "test_verify_uses_the_q_that_sampled",
}


@pytest.fixture(autouse=True)
def few_seeds(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The interpreter takes a twentieth of a second for a row."""
    if triton.interpreted():
        if request.node.originalname in LARGE:
            pytest.skip("takes a GPU: too many rows for the interpreter")
        monkeypatch.setattr(test_block, "SEEDS", FEW_SEEDS)
        monkeypatch.setattr(test_hand_worked, "SEEDS", FEW_SEEDS)
