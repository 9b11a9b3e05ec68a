"""The adapter for vLLM's V2 model runner (`vllm/v1/worker/gpu/`).

V2 keeps what belongs to a request on the device, in a slot of its own (the request-state index), and under asynchronous
scheduling its host lags a step behind. So everything here lives in device tensors by slot, and no step waits for the
device: positions come from the device, figures go out with vLLM's own asynchronous copy of the outputs. What the host
does know is how many drafts of each request a step verifies.

    slots.py     sampling parameters by slot
    rows.py      draft rows by slot
    drafter.py   draws a draft, in the place of the speculator's `sample_draft`
    verifier.py  in the places of the runner's sampler and rejection sampler
    batch.py     a step's rows, drafts and positions, from the runner's InputBatch
    install.py   puts all of it in place, once it has checked that it fits
"""
