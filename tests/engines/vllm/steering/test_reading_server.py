"""Reading through the OpenAI API of a real server: whole and streamed, completions and chat, several choices."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from specdec.demo.servers import Server, free_port
from specdec.engines.command import server_command
from specdec.engines.installed import require_vllm
from tests.engines.vllm.api.asking import ask, events
from tests.engines.vllm.engine import HEAD, MODEL
from tests.engines.vllm.steering.reference import activations, greedy, load_model
from tests.engines.vllm.steering.served import PROGRAMS, Served, make_served
from tests.engines.vllm.steering.test_reading import CHOSEN, LATE, MIDDLE, TOP, reading

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
EXTRA = (
    "--max-model-len", "256", "--served-model-name", "tiny", "--dtype", "float32", "--chat-template", TEMPLATE,
    "--enable-scale-out",  # /inference/v1/generate
)  # fmt: skip
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
MESSAGES_API, TOKENS = "/v1/messages", "/inference/v1/generate"
USAGE = {"include_usage": True}
MESSAGES = [{"role": "user", "content": "def main(args):"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return make_served(tmp_path_factory.mktemp("saes"))


@pytest.fixture(scope="module")
def server(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    command = server_command(
        "specdec", require_vllm(), str(MODEL), str(HEAD), settings=served.settings, eager=True, port=port, extra=EXTRA
    )
    with Server(command, port, folder / "log") as server:
        yield server


def joined(answer: bytes, tokens: str) -> dict[int, dict[str, Any]]:
    """By choice, the readings of a stream put together; tokens: the key of what comes token by token."""
    found: dict[int, dict[str, Any]] = {}
    for event in events(answer):
        for choice in event["choices"]:
            if "specdec" in choice:
                before, read = found.get(choice["index"], {}).get(tokens, []), choice["specdec"]["read"]
                found[choice["index"]] = {**read, tokens: before + read[tokens]}
    return found


@pytest.mark.parametrize(
    ("path", "asked", "tokens", "body"),
    [
        (COMPLETION, reading(MIDDLE, PROGRAMS[0], prompt=True), "activations", {"n": 2}),
        (COMPLETION, reading(TOP, prompt=True), "top", {"stop": [")", "\n"], "stream_options": USAGE}),
        (CHAT, reading(LATE), "activations", {"n": 2, "messages": MESSAGES}),
    ],
    ids=["completions", "top, stop strings", "chat"],
)  # fmt: skip
def test_streams_joined_are_the_whole(
    server: Server, prompts: list[list[int]], path: str, asked: Any, tokens: str, body: dict[str, Any]
) -> None:
    if path == COMPLETION:
        body = {**body, "prompt": prompts[:2]}
    usage = body.pop("stream_options", None)
    whole = json.loads(ask(server, path, asked, **body))
    stream = ask(server, path, asked, stream=True, **body, **({"stream_options": usage} if usage else {}))
    choices = {choice["index"]: choice["specdec"]["read"] for choice in whole["choices"]}
    assert len(choices) == body.get("n", 1) * len(body.get("prompt", [None]))
    assert sum(len(choice[tokens]) for choice in choices.values()) == whole["usage"]["completion_tokens"]
    found = joined(stream, tokens)
    assert found.keys() == choices.keys()
    for index, choice in choices.items():
        assert found[index].keys() == choice.keys()
        for key in choice:
            assert_near(found[index][key], choice[key])
    if "n" in body:
        assert choices[0][tokens] != choices[1][tokens], "the choices must differ, or nothing tells them apart"


def assert_near(found: Any, expected: Any) -> None:
    """Equal, but for what other shapes of the batch do to numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_near(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other)
    else:
        assert found == pytest.approx(expected, rel=1e-3, abs=0.1)


def test_readings_are_aligned_with_the_tokens(server: Server, served: Served, prompts: list[list[int]]) -> None:
    """By transformers, each choice's own; events of a stream carry those of the tokens that they bring."""
    asked, body = reading(MIDDLE, PROGRAMS[0]), {"prompt": prompts[:2], "n": 2, "return_token_ids": True}
    model, program = load_model(), served.program(PROGRAMS[0])
    for choice in json.loads(ask(server, COMPLETION, asked, **body))["choices"]:
        prompt = prompts[choice["index"] // 2]
        response, _ = activations(model, prompt, choice["token_ids"], served, "middle", program)
        np.testing.assert_allclose(
            choice["specdec"]["read"]["activations"], response[:, CHOSEN], atol=1e-3 * float(response.max())
        )
    streamed = events(ask(server, COMPLETION, asked, stream=True, **body))
    for event in streamed:
        for choice in event["choices"]:
            assert len(choice.get("specdec", {}).get("read", {}).get("activations", [])) == len(choice["token_ids"])
    assert max(len(choice["token_ids"]) for event in streamed for choice in event["choices"]) > 1, "drafts accepted"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_answers_that_nobody_asked_to_read_are_unaltered(
    server: Server, prompts: list[list[int]], stream: bool
) -> None:
    """But for the readings, an answer with them has every byte of one without."""

    def bare(answer: bytes) -> list[Any]:
        found = events(answer) if stream else [json.loads(answer)]
        for event in found:
            for key in ("id", "created"):
                event.pop(key)
            for choice in event["choices"]:
                choice.pop("specdec", None)
        return found

    for path, body in ((COMPLETION, {"prompt": prompts[3]}), (CHAT, {"messages": MESSAGES})):
        body |= {"temperature": 0.0, "stream": stream}
        plain, read = ask(server, path, **body), ask(server, path, reading(MIDDLE, prompt=True), **body)
        assert b"specdec" not in plain and b"specdec" in read
        assert bare(plain) == bare(read)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("asked", "body", "says"),
    [
        ({"read": {"sae": "middle", "features": [320]}}, {}, "feature 320 is out of range"),
        ({"read": {"sae": "middle", "features": [3], "top": 2}}, {}, 'either \\"features\\"'),
        ({"read": {"features": [3]}}, {}, "this server has middle, late"),
        ({"read": {"sae": "middle", "top": 65}}, {}, "this server allows 64"),
        ({"preset": "harsh", "read": {"sae": "middle", "top": 2}}, {}, "unknown preset 'harsh'"),
        (reading(MIDDLE), {"use_beam_search": True, "n": 2}, "not served with beam search"),
    ],
)  # fmt: skip
def test_bad_readings_are_refused(
    server: Server, prompts: list[list[int]], asked: Any, body: dict[str, Any], says: str, stream: bool
) -> None:
    for path, given in ((COMPLETION, {"prompt": prompts[0]}), (CHAT, {"messages": MESSAGES})):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(server, path, asked, stream=stream, **given, **body)
        assert refused.value.code == 400
        assert says in refused.value.read().decode()


def test_batches_of_chats(server: Server) -> None:
    """Each conversation has the answer that it has alone."""
    chats = [MESSAGES, [{"role": "user", "content": "import os, sys"}]]
    asked = {**reading(MIDDLE, PROGRAMS[0], prompt=True), "figures": True}
    choices = json.loads(ask(server, f"{CHAT}/batch", asked, messages=chats))["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    for choice, messages in zip(choices, chats, strict=True):
        [alone] = json.loads(ask(server, CHAT, asked, messages=messages))["choices"]
        assert choice["message"]["content"] == alone["message"]["content"]
        assert choice["specdec"].keys() == {"read", "figures"}
        assert_near(choice["specdec"]["read"], alone["specdec"]["read"])
    assert choices[0]["specdec"]["read"] != choices[1]["specdec"]["read"]
    assert "specdec" not in json.loads(ask(server, f"{CHAT}/batch", PROGRAMS[0], messages=chats))["choices"][0]
    says = refusal(server, f"{CHAT}/batch", {"read": {"sae": "middle", "features": [320]}}, messages=chats)
    assert "feature 320 is out of range" in says


def refusal(server: Server, path: str, asked: Any, **body: Any) -> str:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, path, asked, **body)
    assert refused.value.code == 400
    return str(json.loads(refused.value.read())["error"]["message"])


@pytest.mark.parametrize("asked", [reading(MIDDLE), {"figures": True}], ids=["read", "figures"])
def test_answers_without_choices_have_no_place_for_ours(
    server: Server, prompts: list[list[int]], asked: dict[str, Any]
) -> None:
    says = (
        '"read" and "figures" are served by /v1/completions, /v1/chat/completions and /v1/chat/completions/batch only'
    )
    assert refusal(server, "/v1/responses", asked, input="def main(args):", max_output_tokens=8) == says
    assert refusal(server, MESSAGES_API, asked, messages=MESSAGES, max_tokens=8) == says
    for given in (asked, json.dumps(asked)):
        assert refusal(server, TOKENS, None, **tokens_in(prompts[0], given)) == says


def tokens_in(ids: list[int], asked: Any) -> dict[str, Any]:
    """Body of a request that brings tokens and SamplingParams."""
    sampling = {"max_tokens": 20, "temperature": 0, "ignore_eos": True, "extra_args": {"specdec": asked}}
    return {"token_ids": ids, "sampling_params": sampling}


def test_they_steer_nevertheless(server: Server, served: Served, prompts: list[list[int]]) -> None:
    program, plain = PROGRAMS[4], load_model()
    found = json.loads(ask(server, TOKENS, **tokens_in(prompts[0], program)))["choices"][0]["token_ids"]
    assert found == greedy(plain, prompts[0], served.program(program), served, 20)
    body = {"messages": MESSAGES, "temperature": 0, "ignore_eos": False}  # Messages knows no seed and no ignore_eos
    message = json.loads(ask(server, MESSAGES_API, program, **body))["content"][0]["text"]
    chat = json.loads(ask(server, CHAT, program, **body))["choices"][0]["message"]["content"]
    without = json.loads(ask(server, CHAT, **body))["choices"][0]["message"]["content"]
    assert message == chat != without


def test_what_stands_beside_vllm_xargs_is_not_passed_over(server: Server, prompts: list[list[int]]) -> None:
    bodies = {
        COMPLETION: {"prompt": prompts[0]}, CHAT: {"messages": MESSAGES}, f"{CHAT}/batch": {"messages": [MESSAGES]},
        "/v1/responses": {"input": "def main(args):"},
    }  # fmt: skip
    for path, body in bodies.items():
        assert '"specdec" belongs into "vllm_xargs"' in refusal(server, path, None, specdec=PROGRAMS[0], **body)
