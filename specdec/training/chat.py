"""Chats as the text that serving makes of them, with the stretches that the assistant says."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from specdec.errors import SpecdecError
from specdec.training.formats import Chat

Span = tuple[int, int]  # first and behind-last character

# What templates that print today's date are told: the same data must give the same tokens on every day of a run.
_DAY = datetime(2026, 1, 1)


class ChatTemplate:
    """A Jinja template, the tokenizer's own or a file. It runs in the sandbox of transformers and opens no files."""

    def __init__(self, tokenizer: Any, file: Path | None = None) -> None:
        self.tokenizer, self.file = tokenizer, file
        self.template: str | None = None
        if file is not None:
            try:
                self.template = file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                raise SpecdecError(
                    f"--chat-template {file} cannot be read ({reason}): give a file with a Jinja template"
                ) from None

    def render(self, chat: Chat, origin: str, prompt: bool = False) -> str:
        """The whole text; with `prompt` it ends where the assistant's answer begins. SpecdecError names the chat."""
        return self._render(chat.messages, chat.tools, origin, prompt)

    def answers(self, chat: Chat, text: str, origin: str) -> list[Span]:
        """Where in `text`, the rendered chat, the assistant speaks: each answer with the token that ends it.

        By the template's {% generation %} marks; without them, by what it renders before and up to each answer.
        """
        if self._marks():
            spans: list[Span] = self._marked(chat, origin)
            return spans
        spans = []
        for i, message in enumerate(chat.messages):
            if message["role"] == "assistant" and i:  # a first message answers nothing
                begin = self._begin(chat, i, text, origin)
                spans.append((begin, self._end(chat, i, text, begin, origin)))
        return spans

    def _render(self, messages: Sequence[dict[str, Any]], tools: Any, origin: str, prompt: bool = False) -> str:
        self._check_present(origin)
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tools=tools, chat_template=self.template, tokenize=False, add_generation_prompt=prompt,
                strftime_now=_DAY.strftime,
            )  # fmt: skip
        except Exception as error:  # Jinja's errors, and whatever the template's expressions raise
            raise self._cannot(origin, error) from None
        return text

    def _check_present(self, origin: str) -> None:
        if self.template is None and not getattr(self.tokenizer, "chat_template", None):
            raise SpecdecError(
                f"{origin} is a chat, but the target's tokenizer has no chat template: give one with --chat-template "
                "FILE (Jinja), or name another field with --text-field"
            )

    def _marks(self) -> bool:
        template = self.template or self.tokenizer.get_chat_template()
        return "generation" in template and "endgeneration" in template

    def _marked(self, chat: Chat, origin: str) -> list[Span]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            rendered: Any = render_jinja_template(
                conversations=[chat.messages], tools=chat.tools, return_assistant_tokens_mask=True,
                chat_template=self.tokenizer.get_chat_template(self.template, chat.tools),
                **{**self.tokenizer.special_tokens_map, "strftime_now": _DAY.strftime},
            )  # fmt: skip
        except Exception as error:
            raise self._cannot(origin, error) from None
        return [(int(begin), int(end)) for begin, end in rendered[1][0]]

    def _begin(self, chat: Chat, i: int, text: str, origin: str) -> int:
        before = self._render(chat.messages[:i], chat.tools, origin, prompt=True)
        if text.startswith(before):
            return len(before)
        # A prompt may open more than the finished answer shows (reasoning that the template drops afterwards).
        before = self._render(chat.messages[:i], chat.tools, origin)
        content = _plain(chat.messages[i])
        if text.startswith(before) and content and (at := text.find(content, len(before))) >= 0:
            return at
        raise self._rewrites(i, origin)

    def _end(self, chat: Chat, i: int, text: str, begin: int, origin: str) -> int:
        closing = self.tokenizer.get_added_vocab()
        through = self._render(chat.messages[: i + 1], chat.tools, origin)
        if text.startswith(through) and len(through) >= begin:
            answer = text[begin : len(through)].rstrip()
            # What follows the end-of-turn token (a line feed, mostly) is the template's, not the model's.
            return begin + len(answer) if answer.endswith(tuple(closing)) else len(through)
        content = _plain(chat.messages[i])
        if content and (at := text.find(content, begin)) >= 0:
            end = at + len(content)
            return end + max((len(t) for t in closing if text.startswith(t, end)), default=0)
        raise self._rewrites(i, origin)

    def _cannot(self, origin: str, error: Exception) -> SpecdecError:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        name = f"--chat-template {self.file}" if self.file else "the tokenizer's chat template"
        return SpecdecError(f"{name} cannot render {origin} ({first}): mend the chat, or give another --chat-template")

    def _rewrites(self, i: int, origin: str) -> SpecdecError:
        return SpecdecError(
            f"the chat template rewrites message {i + 1} of {origin}, so that the assistant's words cannot be told "
            "apart: give a --chat-template with {% generation %} marks, or --loss-on all"
        )


def prompt_of(chat: Chat) -> Chat:
    """The chat without the assistant's last answer: what it would be asked again."""
    messages = chat.messages
    while messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return Chat(messages, chat.tools)


def _plain(message: dict[str, Any]) -> str:
    content = message["content"]
    return content.strip() if isinstance(content, str) else ""
