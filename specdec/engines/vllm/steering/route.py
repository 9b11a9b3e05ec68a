"""How a request's readings travel from the engine core to the API process: under kv_transfer_params["specdec"].

vLLM's output of a request has no other part that holds what vLLM does not know. A connector's own parameters stay
beside ours, and go on alone.
"""

from typing import Any

from specdec.engines.vllm.steering.carried import KEY


def attach(output: Any, entry: dict[str, Any]) -> None:
    """Engine core: lays an entry of Found.entries to an EngineCoreOutput.

    It has a row for each token that might have come; those of rejected drafts, and behind an end, fall away.
    """
    tokens, size = len(output.new_token_ids), 4 * entry["width"]
    if len(entry["rows"]) < tokens * size:
        raise RuntimeError(f"{tokens} tokens came of {len(entry['rows']) // size} rows that were read")
    mine = {**entry, "rows": entry["rows"][: tokens * size]}
    output.kv_transfer_params = {**(output.kv_transfer_params or {}), KEY: mine}


def detach(output: Any) -> dict[str, Any] | None:
    """API process: takes it out again; None where there is none."""
    parameters = output.kv_transfer_params
    if not isinstance(parameters, dict) or KEY not in parameters:
        return None
    output.kv_transfer_params = {key: value for key, value in parameters.items() if key != KEY} or None
    return parameters[KEY]
