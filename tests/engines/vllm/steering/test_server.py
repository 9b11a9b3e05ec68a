"""Steering through the OpenAI API of a real server; HTTP 400 with the reason where a program is not understood."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from specdec.demo.servers import Server, free_port
from specdec.engines.command import server_command
from specdec.engines.installed import require_vllm
from tests.engines.vllm.engine import HEAD, MODEL
from tests.engines.vllm.steering.served import PROGRAMS, make_served

EXTRA = ("--max-model-len", "256", "--served-model-name", "tiny", "--dtype", "float32")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    settings = make_served(folder).settings
    port, vllm = free_port(), require_vllm()
    command = server_command(
        "specdec", vllm, str(MODEL), str(HEAD), settings=settings, eager=True, port=port, extra=EXTRA
    )
    with Server(command, port, folder / "log") as server:
        yield server


def post(server: Server, program: Any = None, path: str = "/v1/completions", **body: Any) -> Any:
    """The answer; program: as text, or None."""
    arguments = {"vllm_xargs": {"specdec": program}} if program is not None else {}
    data = json.dumps({"model": "tiny", "max_tokens": 24, "temperature": 0.0, **arguments, **body}).encode()
    request = urllib.request.Request(f"{server.url}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def texts(answer: Any) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def test_programs_travel_with_requests(server: Server, prompts: list[list[int]]) -> None:
    plain = texts(post(server, prompt=prompts[0]))
    steered = texts(post(server, json.dumps(PROGRAMS[0]), prompt=prompts[0]))
    assert steered != plain
    assert texts(post(server, json.dumps(PROGRAMS[0]), prompt=prompts[0])) == steered
    strong = {"preset": "gentle", "strength": 300}
    assert texts(post(server, json.dumps(strong), prompt=prompts[0])) not in (plain, steered)
    assert texts(post(server, prompt=prompts[0])) == plain


def test_every_choice_is_steered(server: Server, prompts: list[list[int]]) -> None:
    """n greedy choices are one and the same."""
    [alone] = texts(post(server, json.dumps(PROGRAMS[0]), prompt=prompts[0]))
    answer = post(server, json.dumps(PROGRAMS[0]), prompt=prompts[0], n=3, temperature=1e-6, seed=1)
    assert texts(answer) == [alone] * 3


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("{", "holds no JSON"),
        ('{"steer": [{"sae": "middle", "feature": 320, "add": 1}]}', "feature 320 is out of range"),
        ('{"steer": [{"sae": "middle", "feature": 3, "add": 1e9}]}', "larger than this server's max_strength"),
        ('{"steer": [{"sae": "middle", "feature": 3, "add": NaN}]}', "add is nan"),
        ('{"preset": "harsh"}', "unknown preset 'harsh': this server has gentle"),
    ],
)  # fmt: skip
def test_bad_programs_are_refused_and_nobody_else_notices(
    server: Server, prompts: list[list[int]], program: str, says: str
) -> None:
    body = {"prompt": prompts[1], "max_tokens": 200}
    alone = texts(post(server, **body))
    with ThreadPoolExecutor(1) as pool:
        neighbour = pool.submit(post, server, **body)
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(server, program, prompt=prompts[0])
        assert refused.value.code == 400
        assert says in refused.value.read().decode()
        assert texts(neighbour.result()) == alone


def test_a_server_that_does_not_steer_says_so(tmp_path: Path, prompts: list[list[int]]) -> None:
    """No silent no-op, neither with our worker nor with vLLM's own."""
    port = free_port()
    command = server_command("none", require_vllm(), str(MODEL), None, eager=True, port=port, extra=EXTRA)
    with Server(command, port, tmp_path / "log") as plain:
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(plain, json.dumps(PROGRAMS[0]), prompt=prompts[0])
        assert refused.value.code == 400
        assert "this server does not steer" in refused.value.read().decode()
