"""What a request of an HTTP endpoint asks of us, and why it cannot be served."""

from typing import Any

from specdec.engines.vllm.api.admission import admissible
from specdec.engines.vllm.api.carried import KEY
from specdec.errors import SpecdecError
from specdec.request import Offer
from specdec.steering.parts import as_object

ELSEWHERE = (
    '"read" and "figures" are served by /v1/completions, /v1/chat/completions and /v1/chat/completions/batch only'
)
MISPLACED = '"specdec" belongs into "vllm_xargs", as a JSON text: {"vllm_xargs": {"specdec": "{\\"steer\\": [...]}"}}'


def asks(request: Any) -> bool:
    """Whether the request, of OpenAI's API, wants something of ours in its answer."""
    return wants(_given(request))


def wants(given: Any) -> bool:
    """Likewise by what stands under "specdec", an object or a text."""
    try:
        found = as_object(given)
    except SpecdecError:
        return False  # refused where it is admitted
    return isinstance(found, dict) and (found.get("read") is not None or found.get("figures") is True)


def misplaced(request: Any) -> bool:
    """Whether it stands beside vllm_xargs, where vLLM passes over what it does not know."""
    return KEY in (request.model_extra or {})


def problem(request: Any, offer: Offer | None, whole_choices: bool) -> str | None:
    """Why the request's "specdec" cannot be served; None: it can, or there is none.

    whole_choices: whether the answer has a place for ours.
    """
    if misplaced(request):
        return MISPLACED
    given = _given(request)
    if given is None:
        return None
    try:
        admissible(given, offer)
    except SpecdecError as error:
        return str(error)
    if request.use_beam_search:
        return '"specdec" is not served with beam search: leave use_beam_search out'
    if asks(request) and not whole_choices:
        return ELSEWHERE
    return None


def _given(request: Any) -> Any:
    """In a batch of chats, vllm_xargs is a field that vLLM hands on unchecked."""
    arguments = getattr(request, "vllm_xargs", None)
    return arguments.get(KEY) if isinstance(arguments, dict) else None
