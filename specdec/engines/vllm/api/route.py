"""How what belongs to a request's answer travels.

From the worker to the engine core as attributes of a step's ModelRunnerOutput, entries by request; from there to the
API process under an output's kv_transfer_params["specdec"], by name, as AnswerCollector.take understands it: vLLM's
output of a request has no other part that holds what vLLM does not know. A connector's own parameters stay beside
ours, and go on alone.
"""

from typing import Any

from specdec.engines.vllm.api.carried import KEY

# Attributes of a ModelRunnerOutput.
READINGS = "specdec_readings"  # Found.entries of steering/readers.py
FIGURES = "specdec_figures"  # Landed.entries of figures.py
STEP = "specdec_step"  # Landed.step of figures.py, for adaptive.py


def attach(output: Any, name: str, entry: dict[str, Any]) -> None:
    """Engine core: lays an entry to an EngineCoreOutput."""
    parameters = output.kv_transfer_params or {}
    output.kv_transfer_params = {**parameters, KEY: {**parameters.get(KEY, {}), name: entry}}


def attach_readings(output: Any, entry: dict[str, Any]) -> None:
    """One of Found.entries. It has a row for each token that might have come; those of rejected drafts, and behind an
    end, fall away.
    """
    tokens, size = len(output.new_token_ids), 4 * entry["width"]
    if len(entry["rows"]) < tokens * size:
        raise RuntimeError(f"{tokens} tokens came of {len(entry['rows']) // size} rows that were read")
    attach(output, "read", {**entry, "rows": entry["rows"][: tokens * size]})


def attach_figures(output: Any, entry: dict[str, Any]) -> None:
    """One of Landed.entries; entropies of tokens behind an end fall away."""
    attach(output, "figures", {**entry, "entropy": entry["entropy"][: len(output.new_token_ids)]})


def detach(output: Any) -> dict[str, Any] | None:
    """API process: takes what was attached out again; None where nothing was."""
    parameters = output.kv_transfer_params
    if not isinstance(parameters, dict) or KEY not in parameters:
        return None
    output.kv_transfer_params = {key: value for key, value in parameters.items() if key != KEY} or None
    return parameters[KEY]
