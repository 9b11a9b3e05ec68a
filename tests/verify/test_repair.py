"""on_bad_row="repair": a row that is no distribution costs its own request its law, and no other request anything."""

import math

import pytest
import torch

from specdec.errors import BadLogitsError, SpecdecError
from specdec.sampling import SamplingBatch
from specdec.verify import Draft, VerifyOutput, sample_draft, verify
from tests.helpers.cases import random_case

BAD = [math.nan, math.inf]


def run(case, backend: str, method: str = "token", **kw) -> VerifyOutput:
    return verify(case.target, case.draft, case.sampling, method, backend, on_bad_row="repair", **kw)


@pytest.mark.parametrize("method", ["token", "block"])
def test_good_rows_are_left_as_they_are(backend: str, method: str):
    case = random_case(1, 300, 3, counts=[2, 0, 1])
    case.target[3, :200] = -math.inf  # filtered entries are no fault
    out = run(case, backend, method)
    plain = verify(case.target, case.draft, case.sampling, method, backend)
    assert torch.equal(out.token_ids, plain.token_ids)
    assert out.bad_row is not None and out.bad_row.dtype == torch.int32
    assert out.bad_row.tolist() == [-1] * 3 and plain.bad_row is None


@pytest.mark.parametrize("method", ["token", "block"])
def test_what_is_finite_remains_and_the_neighbours_never_notice(backend: str, method: str):
    case, same = (random_case(2, 300, 5, counts=[2, 0, 2, 1, 0]) for _ in range(2))
    # Rows of request 0: 0-2, of 1: 3, of 2: 4-6, of 3: 7-8, of 4: 9.
    for row, value in ((1, math.nan), (3, math.inf), (5, math.inf), (6, math.nan)):
        case.target[row, 17:90] = value
        same.target[row, 17:90] = -math.inf
    out = run(case, backend, method)
    assert torch.equal(out.token_ids, verify(same.target, same.draft, same.sampling, method, backend).token_ids)
    assert out.bad_row is not None and out.bad_row.tolist() == [1, 3, 5, -1, -1]


@pytest.mark.parametrize("value", [*BAD, -math.inf])
def test_a_row_with_nothing_finite_gives_token_0(backend: str, value: float):
    case = random_case(3, 40, 4, counts=[1, 1, 0, 1])
    case.target[3:5] = value  # the bonus row of request 1, and request 2
    out = run(case, backend)
    assert out.token_ids[2, 0] == 0
    assert out.token_ids[1, 1] in (0, -1)
    assert out.bad_row is not None and out.bad_row.tolist() == [-1, 3, 4, -1]


@pytest.mark.parametrize(("value", "token"), [(math.nan, 5), (math.inf, 5)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_bad_draft_row_proposes_its_largest_finite_token(backend: str, value: float, token: int, temperature: float):
    logits = torch.zeros(3, 9)
    logits[1, 2], logits[1, token] = value, 4.0
    logits[2] = value
    sampling = SamplingBatch.uniform(3, temperature=temperature, seed=1)
    tokens, stats = sample_draft(logits, sampling, 0, backend, on_bad_row="repair")
    good, good_stats = sample_draft(logits[:1], sampling.rows(torch.tensor([0])), 0, backend)
    assert tokens.tolist() == [good.item(), token, 0]
    assert torch.equal(stats[:1], good_stats)
    assert stats[1:, 0].tolist() == [0, 0], "a point mass"
    with pytest.raises(BadLogitsError, match="Row 1 of the draft logits"):
        sample_draft(logits, sampling, 0, backend)


def test_bad_rows_do_not_hide_bad_parameters(backend: str):
    case = random_case(4, 30, 3)
    case.target[0] = math.nan
    case.sampling.top_p[1] = 0
    with pytest.raises(SpecdecError, match="top_p of request 1"):
        run(case, backend)


def test_unknown_choice():
    case = random_case(5, 30, 2)
    with pytest.raises(SpecdecError, match="on_bad_row is 'skip': use 'raise' or 'repair'"):
        verify(case.target, case.draft, case.sampling, on_bad_row="skip")
    with pytest.raises(SpecdecError, match="on_bad_row is 'skip'"):
        sample_draft(case.target[:2], case.sampling, 0, on_bad_row="skip")


def test_no_requests(backend: str):
    none = Draft(torch.empty(0, dtype=torch.int32), [])
    out = verify(torch.empty(0, 9), none, SamplingBatch.uniform(0), backend=backend, on_bad_row="repair")
    assert out.bad_row is not None and out.bad_row.shape == (0,)
