"""What verify takes, what it refuses, and what it leaves alone."""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from specdec.errors import BadLogitsError, SpecdecError
from specdec.registry import Registry
from specdec.sampling import SamplingBatch
from specdec.verify import Draft, backends, sample_draft, verify
from tests.helpers.cases import random_case


def test_backends():
    assert {"reference", "cpu"} <= set(backends()) <= {"reference", "cpu", "cuda", "triton"}


@pytest.mark.parametrize(
    ("row", "request_of_row", "value"),
    [(0, 0, math.nan), (1, 0, math.inf), (2, 0, math.nan), (3, 1, math.nan), (6, 2, math.inf)],
)
def test_bad_target_row_names_itself(backend: str, row: int, request_of_row: int, value: float):
    """Any row counts, reached or not: an error must not depend on the draws."""
    case = random_case(1, 600, 3, counts=[2, 0, 2])
    case.target[row, 599] = value
    with pytest.raises(BadLogitsError, match=f"Row {row} of the target logits") as error:
        verify(case.target, case.draft, case.sampling, backend=backend)
    assert (error.value.row, error.value.request) == (row, request_of_row)
    assert isinstance(error.value, ValueError)


def test_row_of_nothing_but_minus_infinity(backend: str):
    case = random_case(1, 9, 2, counts=[1, 1])
    case.target[2] = -math.inf
    with pytest.raises(BadLogitsError, match="Row 2"):
        verify(case.target, case.draft, case.sampling, backend=backend)
    with pytest.raises(BadLogitsError, match="Row 2 of the draft logits"):
        sample_draft(case.target[:3], SamplingBatch.uniform(3), 0, backend=backend)


def test_broken_draft_row_is_rejected_and_drawn_from_the_target(backend: str):
    target = torch.tensor([[0.0, -math.inf, 0.0]]).repeat(2, 1)
    for seed in range(5):
        sampling = SamplingBatch.uniform(1, seed=seed)
        q = torch.full((1, 3), math.nan)
        for stats in (None, torch.full((1, 4), math.nan, dtype=torch.float64)):
            out = verify(target, Draft(torch.tensor([0]), [1], q, stats), sampling, backend=backend)
            assert out.num_accepted.item() == 0
            assert out.token_ids[0, 0] in (0, 2)
            assert out.acceptance_probability.item() == 0


@pytest.mark.parametrize("token", [-1, 3, 2**32, -(2**31)])
@pytest.mark.parametrize("with_logits", [False, True])
def test_ids_outside_the_vocabulary_are_rejected(backend: str, token: int, with_logits: bool):
    target = torch.tensor([[0.0, -math.inf, 0.0]]).repeat(2, 1)
    draft = Draft(torch.tensor([token]), [1], torch.zeros(1, 3) if with_logits else None)
    for temperature in (0.0, 1.0):
        sampling = SamplingBatch.uniform(1, temperature=temperature)
        out = verify(target, draft, sampling, backend=backend, expected_acceptance=True)
        assert out.token_ids[0, 0] in (0, 2)
        assert out.token_ids[0, 1] == -1
        assert out.expected_acceptance.item() == out.acceptance_probability.item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_inputs_are_never_written(backend: str, dtype: torch.dtype):
    case = random_case(2, 100, 3, dtype, counts=[2, 0, 1])
    tensors = [case.target, case.draft.logits, case.draft.token_ids, case.draft.row_stats]
    tensors += [getattr(case.sampling, name) for name in ("temperature", "top_k", "top_p", "min_p", "seed", "position")]
    before = [t.clone() for t in tensors]
    verify(case.target, case.draft, case.sampling, backend=backend, expected_acceptance=True)
    sample_draft(case.target[:3], case.sampling, 0, backend=backend)
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


def test_strided_rows_and_other_layouts(backend: str):
    case = random_case(3, 130, 3, torch.bfloat16, counts=[1, 0, 2])
    plain = verify(case.target, case.draft, case.sampling, backend=backend)

    def padded(t: torch.Tensor) -> torch.Tensor:  # as a vocabulary padded for the hardware is cut
        return torch.nn.functional.pad(t, (3, 11), value=math.nan)[:, 3 : 3 + t.shape[1]]

    draft = Draft(
        torch.stack([case.draft.token_ids.long()] * 2, 1)[:, 0],
        torch.tensor(case.draft.num_per_request),
        padded(case.draft.logits),
        padded(case.draft.row_stats),
        torch.arange(6)[::2] // 2,
    )
    assert torch.equal(verify(padded(case.target), draft, case.sampling, backend=backend).token_ids, plain.token_ids)
    transposed = case.target.T.contiguous().T
    assert torch.equal(verify(transposed, case.draft, case.sampling, backend=backend).token_ids, plain.token_ids)


def test_rows_more_than_2_to_the_31_elements_apart(backend: str, tmp_path: Path):
    """Offsets in 32 bits would wrap. The matrix is a file with holes: only the rows themselves take memory."""
    case = random_case(7, 50, 2, torch.bfloat16, counts=[1, 1])
    plain = verify(case.target, case.draft, case.sampling, backend=backend)
    stride = 2**30 + 3

    def far_apart(rows: torch.Tensor, name: str) -> torch.Tensor:
        count, vocab = rows.shape
        size = (count - 1) * stride + vocab
        flat = torch.from_file(str(tmp_path / name), shared=True, size=size, dtype=rows.dtype)
        matrix = flat.as_strided((count, vocab), (stride, 1))
        return matrix.copy_(rows)

    target = far_apart(case.target, "target")
    assert target.storage_offset() + 3 * stride > 2**31
    logits = far_apart(torch.cat([case.draft.logits, case.draft.logits]), "draft")
    draft = replace(case.draft, logits=logits, row_stats=case.draft.row_stats.repeat(2, 1), rows=torch.tensor([0, 3]))
    assert torch.equal(verify(target, draft, case.sampling, backend=backend).token_ids, plain.token_ids)
    four = SamplingBatch.uniform(4, seed=1)
    known, _ = sample_draft(case.target, four, 0, backend)
    assert torch.equal(sample_draft(target, four, 0, backend)[0], known)


def test_zero_drafts_everywhere(backend: str):
    """Plain sampling: every request gets its bonus token alone."""
    case = random_case(8, 50, 5, counts=[0] * 5)
    one_hot = Draft(torch.empty(0, dtype=torch.int64), torch.zeros(5, dtype=torch.int32))
    for draft, method in ((case.draft, "token"), (case.draft, "block"), (one_hot, "token")):
        out = verify(case.target, draft, case.sampling, method, backend, expected_acceptance=True)
        assert out.token_ids.shape == (5, 1) and out.num_accepted.tolist() == [0] * 5
        assert (out.token_ids >= 0).all() and out.expected_acceptance.shape == (0,)


def test_empty_batch(backend: str):
    out = verify(
        torch.empty(0, 9), Draft(torch.empty(0, dtype=torch.int32), []), SamplingBatch.uniform(0), backend=backend
    )
    assert (out.token_ids.shape, out.num_accepted.shape) == ((0, 1), (0,))
    tokens, stats = sample_draft(torch.empty(0, 9), SamplingBatch.uniform(0), 0, backend=backend)
    assert (tokens.shape, stats.shape) == ((0,), (0, 4))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("min_p", math.nan),
    ],
)
def test_parameters_out_of_range(backend: str, name: str, value: float):
    case = random_case(4, 50, 4)
    getattr(case.sampling, name)[2] = value
    with pytest.raises(SpecdecError, match=f"{name} of request 2 is"):
        verify(case.target, case.draft, case.sampling, backend=backend)
    with pytest.raises(SpecdecError, match=f"{name} of request 2 is"):
        sample_draft(case.target[:4], case.sampling, 0, backend=backend)


def test_shapes_that_do_not_fit():
    case = random_case(5, 20, 3, counts=[1, 2, 0])
    target, draft, sampling = case.target, case.draft, case.sampling

    def refused(match: str, t=target, s=sampling, **kw) -> None:
        fields = {"token_ids": draft.token_ids, "num_per_request": draft.num_per_request}
        fields |= {"logits": draft.logits, "row_stats": draft.row_stats} | kw
        with pytest.raises(SpecdecError, match=match):
            verify(t, Draft(**fields), s)

    refused("5 rows: 3 drafts of 3 requests need 6", t=target[:5])
    refused("convert it to bfloat16", t=target.double())
    refused("pass a matrix", t=target[0])
    refused("at most 16777216 fits", t=torch.zeros(1, 1).expand(6, 2**24 + 1))
    refused("sampling has 2 requests", s=SamplingBatch.uniform(2))
    refused("token_ids is torch.int32", token_ids=draft.token_ids[:2])
    refused("token_ids is torch.float32", token_ids=draft.token_ids.float())
    refused("holds -1", num_per_request=[4, -1, 0])
    refused("draft logits have shape", logits=draft.logits[:, :19])
    refused("row_stats came without logits", logits=None)
    refused("row_stats is torch.float32", row_stats=draft.row_stats.float())
    with pytest.raises(SpecdecError, match="logits has 6 rows, sampling 3"):
        sample_draft(target, sampling, 0)


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingBatch)])
def test_sampling_parameters_are_where_the_logits_are(name: str):
    case = random_case(5, 20, 3)
    setattr(case.sampling, name, getattr(case.sampling, name).to("meta"))
    with pytest.raises(SpecdecError, match=f"sampling.{name} is on meta, target_logits on cpu"):
        verify(case.target, case.draft, case.sampling)
    with pytest.raises(SpecdecError, match=f"sampling.{name} is on meta, logits on cpu"):
        sample_draft(case.target[:3], case.sampling, 0)


@pytest.mark.parametrize("name", ["token_ids", "logits", "row_stats", "rows"])
def test_drafts_are_where_the_logits_are(name: str):
    case = random_case(5, 20, 3)
    draft = replace(case.draft, rows=torch.arange(len(case.draft.token_ids)))
    with pytest.raises(SpecdecError, match=f"draft.{name} is on meta, target_logits on cpu"):
        verify(case.target, replace(draft, **{name: getattr(draft, name).to("meta")}), case.sampling)


def test_unknown_names_list_the_valid_ones():
    case = random_case(6, 20, 2)
    with pytest.raises(SpecdecError, match=r"Unknown verify backend 'gpu': use one of .*cpu, reference"):
        verify(case.target, case.draft, case.sampling, backend="gpu")
    with pytest.raises(SpecdecError, match="Unknown verify method 'best': use one of token"):
        verify(case.target, case.draft, case.sampling, method="best")


def test_registry():
    made: list[int] = []
    registry: Registry[str] = Registry("colour")
    registry.register("red", lambda: made.append(1) or "#f00")
    assert made == []
    assert (registry.get("red"), registry.get("red"), made) == ("#f00", "#f00", [1])
    with pytest.raises(SpecdecError, match="'red' is registered twice"):
        registry.register("red", str)
    with pytest.raises(SpecdecError, match="Unknown colour 'blue': use one of red"):
        registry.get("blue")
