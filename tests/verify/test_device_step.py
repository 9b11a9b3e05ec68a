"""What GPU backends hand to their kernels, on CPU tensors."""

from dataclasses import replace

import pytest
import torch

from specdec.errors import BadLogitsError
from specdec.verify.device_step import begin, check_drawn
from tests.helpers.cases import random_case
from tests.kernels.subject import as_input


def test_the_layout_is_made_once_for_the_same_counts():
    step = begin(as_input(random_case(1, 9, 3, counts=[2, 0, 1])))
    assert step.first_row.tolist() == [0, 3, 4, 6] and step.request_of_row.tolist() == [0, 0, 0, 1, 2, 2]
    again = begin(as_input(random_case(2, 11, 3, counts=[2, 0, 1])))
    assert again.first_row is step.first_row and again.request_of_row is step.request_of_row
    other = begin(as_input(random_case(1, 9, 3, counts=[0, 2, 1])))
    assert other.first_row.tolist() == [0, 1, 4, 6]


def test_sampling_parameters_are_looked_at_where_the_host_may_wait():
    case = random_case(1, 9, 2)
    given = as_input(replace(case, sampling=case.sampling.rows(torch.tensor([0, 1]))))
    given.sampling.top_p[1] = 0
    with pytest.raises(ValueError, match="top_p of request 1 is 0"):
        begin(given)
    begin(replace(given, on_bad_row="repair"))


def test_the_first_bad_draft_row_is_named():
    check_drawn(torch.zeros(3, dtype=torch.int32))
    with pytest.raises(BadLogitsError, match="1"):
        check_drawn(torch.tensor([0, 1, 1], dtype=torch.int32))
