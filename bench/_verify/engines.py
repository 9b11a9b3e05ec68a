"""Other implementations of the same step, each called as its engine calls it. Each function turns a case into
(prepare, run), as in contenders.py."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from _verify.cases import FILTERS, Case

Prepare = Callable[[], Any]
Run = Callable[[Any], Any]


def nothing() -> None:
    """A `prepare` for calls that need none."""
    return None


def vllm_v1(case: Case) -> tuple[Prepare, Run]:
    """`apply_sampling_constraints` + `rejection_sample`, as vLLM's V1 sampler calls them.

    Left out of the time, in vLLM's favour: its float32 copy of the target rows, its float32 softmax of the draft rows,
    and drawing the bonus tokens. Its `expand_batch_to_tokens` is replaced: on a CPU it returns uninitialised memory.
    """
    importlib.import_module("specdec.engines.vllm.conformance_v1").register_cpu_kernels()
    module = importlib.import_module("vllm.v1.sample.rejection_sampler")
    metadata_type = importlib.import_module("vllm.v1.sample.metadata").SamplingMetadata
    n, batch, s = case.shape.drafts, case.shape.batch, case.sampling
    off = FILTERS[case.shape.filters]
    fields: dict[str, Any] = dict.fromkeys(metadata_type.__dataclass_fields__)
    fields |= {"all_greedy": False, "all_random": True, "no_penalties": True, "generators": {}}
    fields |= {"temperature": s.temperature, "top_k": s.top_k if "top_k" in off else None}
    fields |= {"top_p": s.top_p if "top_p" in off else None}
    metadata = metadata_type(**fields)
    cumulative = torch.arange(1, batch + 1, dtype=torch.int32, device=case.target.device) * n
    counts = [n] * batch

    def expand(x: torch.Tensor, cu: torch.Tensor, total: int, replace_from: int = 0, replace_to: int = 0) -> Any:
        return torch.where(x == replace_from, replace_to, x).repeat_interleave(n)

    module.expand_batch_to_tokens = expand
    draft_rows = case.draft.logits
    assert draft_rows is not None, "bench drafts are sampled"
    drafts = draft_rows.float().div_(s.temperature.repeat_interleave(n)[:, None]).softmax(-1)
    bonus = torch.zeros(batch, 1, dtype=torch.int32, device=case.target.device)
    is_draft = torch.arange(case.target.shape[0], device=case.target.device) % (n + 1) < n

    def prepare() -> torch.Tensor:
        return case.target[is_draft].float()

    def run(logits: torch.Tensor) -> torch.Tensor:
        logits = module.apply_sampling_constraints(logits, cumulative, metadata)
        return module.rejection_sample(case.draft.token_ids, counts, n, cumulative, drafts, logits, bonus, metadata)

    return prepare, run


def vllm_v2(case: Case) -> tuple[Prepare, Run]:
    """The V2 runner's path: a float32 copy of the target rows, in it temperature, min-p, top-k and top-p, then
    `rejection_sample`. Its draft rows are used as they are, at the request's temperature and without filters."""
    ops = importlib.import_module("vllm.v1.sample.ops.topk_topp_sampler")
    gumbel = importlib.import_module("vllm.v1.worker.gpu.sample.gumbel")
    min_p = importlib.import_module("vllm.v1.worker.gpu.sample.min_p")
    utils = importlib.import_module("vllm.v1.worker.gpu.spec_decode.rejection_sampler_utils")
    n, batch, s, device = case.shape.drafts, case.shape.batch, case.sampling, case.target.device
    off, draft_rows = FILTERS[case.shape.filters], case.draft.logits
    assert draft_rows is not None, "bench drafts are sampled"
    states = torch.arange(batch, dtype=torch.int32, device=device)
    state_of_row = states.repeat_interleave(n + 1)
    local = torch.arange(n + 1, dtype=torch.int32, device=device).repeat(batch)
    position = s.position[state_of_row.long()] + local - 1
    # Row j of a request holds its input token: draft j - 1, and for j = 0 the token sampled before.
    inputs = torch.zeros(batch, n + 1, dtype=torch.int32, device=device)
    inputs[:, 1:] = case.draft.token_ids.view(batch, n)
    starts = torch.arange(batch + 1, dtype=torch.int32, device=device) * (n + 1)
    kept = draft_rows.view(batch, n, -1)
    each = state_of_row.long()
    top_k = s.top_k[each] if "top_k" in off else None
    top_p = s.top_p[each] if "top_p" in off else None

    def run(_: Any) -> Any:
        rows = case.target
        if off:
            rows = torch.empty_like(rows, dtype=torch.float32).copy_(rows)
            gumbel.apply_temperature(rows, state_of_row, s.temperature)
            if "min_p" in off:
                min_p.apply_min_p(rows, state_of_row, s.min_p)
            if top_k is not None or top_p is not None:
                rows = ops.apply_top_k_top_p(rows, top_k, top_p)
        return utils.rejection_sample(
            rows, kept, inputs.view(-1), starts, position, states, state_of_row, local, s.temperature, s.seed, n
        )

    return nothing, run


def sglang(case: Case) -> tuple[Prepare, Run]:
    """Softmax and renormalisation of the target rows, then the chain kernel, as `eagle_sample` does. Left out, in
    SGLang's favour: the softmax of the draft rows, which its draft step has made."""
    kernels = importlib.import_module("sglang.kernels.ops.speculative.reject_sampling")
    renorm = importlib.import_module("sglang.kernels.ops.sampling.renorm_triton")
    n, batch, s, off = case.shape.drafts, case.shape.batch, case.sampling, FILTERS[case.shape.filters]
    device, slots, draft_rows = case.target.device, n + 1, case.draft.logits
    assert draft_rows is not None, "bench drafts are sampled"
    each = torch.arange(batch, device=device).repeat_interleave(slots)
    temperature, top_k, top_p = s.temperature[each, None], s.top_k[each], s.top_p[each]
    q = (draft_rows.float() / s.temperature.repeat_interleave(n)[:, None]).softmax(-1).view(batch, n, -1)
    ids = torch.cat([case.draft.token_ids.new_zeros(batch, 1), case.draft.token_ids.view(batch, n)], 1).long()
    index = torch.arange(batch * slots, device=device).view(batch, slots)
    coins, final = torch.rand(batch, slots, device=device), torch.rand(batch, device=device)

    def run(_: Any) -> Any:
        p = (case.target.float() / temperature).softmax(-1)
        if "top_k" in off:
            p = renorm.top_k_renorm_probs_triton(p, top_k)
        if "top_p" in off:
            p = renorm.top_p_renorm_probs_triton(p, top_p)
        predicts = torch.zeros(batch * slots, dtype=torch.int32, device=device)
        accept_index = torch.full((batch, slots), -1, dtype=torch.int32, device=device)
        accepted = torch.empty(batch, dtype=torch.int32, device=device)
        kernels.chain_speculative_sampling_triton(
            predicts, accept_index, accepted, ids, index, None, None, coins, final, p.view(batch, slots, -1), q,
            1.0, 1.0, True, block_verification=False,
        )  # fmt: skip
        return predicts, accepted

    return nothing, run


def flashinfer(case: Case) -> tuple[Prepare, Run]:
    """Chain speculative sampling, and the probabilities it needs: softmax, top-k and top-p of target and draft rows."""
    sampling = importlib.import_module("flashinfer.sampling")
    n, batch, s, off = case.shape.drafts, case.shape.batch, case.sampling, FILTERS[case.shape.filters]
    vocabulary, draft_rows = case.shape.vocabulary, case.draft.logits
    assert draft_rows is not None, "bench drafts are sampled"

    def probabilities(rows: torch.Tensor, each: int) -> torch.Tensor:
        p = sampling.softmax(rows.float(), temperature=s.temperature.repeat_interleave(each))
        if "top_k" in off:
            p = sampling.top_k_renorm_probs(p, s.top_k.repeat_interleave(each))
        if "top_p" in off:
            p = sampling.top_p_renorm_probs(p, s.top_p.repeat_interleave(each))
        return p.view(batch, each, vocabulary)

    ids = case.draft.token_ids.view(batch, n).to(torch.int32)
    return nothing, lambda _: sampling.chain_speculative_sampling(
        probabilities(draft_rows, n), ids, probabilities(case.target, n + 1)
    )
