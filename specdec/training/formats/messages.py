"""The messages of a chat, brought to one form: {"role": ..., "content": ...} and whatever else the template reads."""

from typing import Any

from specdec.errors import SpecdecError

# ShareGPT's names for the same: {"from": "human", "value": ...}.
_ROLES = {"human": "user", "gpt": "assistant"}


def check_messages(value: Any, place: str) -> list[dict[str, Any]]:
    """Copies of the messages in `value`; both {"role", "content"} and {"from", "value"} are read.

    Null entries are left out: tables hold a null for each key that another message has. SpecdecError names the message.
    """
    if not isinstance(value, list):
        raise SpecdecError(f"{place} is not a list of messages: mend or remove it")
    return [_message(message, f"message {number} of {place}") for number, message in enumerate(value, 1)]


def _message(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecdecError(f'{place} is not an object with "role" and "content": mend or remove it')
    message = {name: entry for name, entry in value.items() if entry is not None}
    if "role" not in message and "from" in message:
        role = message.pop("from")
        message = {"role": _ROLES.get(role, role), "content": message.pop("value", None), **message}
    if not isinstance(message.get("role"), str):
        raise SpecdecError(f'{place} has no "role" such as "user": mend or remove it')
    message.setdefault("content", "")  # an assistant that only calls tools
    if not isinstance(message["content"], str | list):
        raise SpecdecError(f'{place} has no "content" text: mend or remove it')
    return message
