"""A request's figures in its answer, and the metrics of a server with two API processes, by tenant."""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from specdec.demo.servers import Server, free_port
from specdec.engines.command import server_command
from specdec.engines.installed import require_vllm
from tests.engines.vllm.api.asking import ask, events
from tests.engines.vllm.engine import HEAD, MODEL

TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
EXTRA = (
    "--max-model-len", "256", "--served-model-name", "tiny", "--dtype", "float32", "--chat-template", TEMPLATE,
    "--api-server-count", "2",
)  # fmt: skip
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
FIGURES = {"figures": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    settings = {"metrics": {"max_tenants": 2}}
    command = server_command(
        "specdec", require_vllm(), str(MODEL), str(HEAD), settings=settings, eager=True, port=port, extra=EXTRA
    )
    argv = [sys.executable, "-m", "tests.engines.vllm.api.served", *command.argv[command.argv.index("--model") :]]
    with Server(replace(command, argv=argv), port, folder / "log") as server:
        yield server


def figures_of(answer: bytes) -> list[dict[str, Any]]:
    return [choice["specdec"]["figures"] for choice in json.loads(answer)["choices"]]


def streamed(answer: bytes) -> dict[int, list[dict[str, Any]]]:
    """By choice, the figures of its events."""
    found: dict[int, list[dict[str, Any]]] = {}
    for event in events(answer):
        for choice in event["choices"]:
            if "specdec" in choice:
                found.setdefault(choice["index"], []).append(choice["specdec"]["figures"])
    return found


def check(figures: dict[str, Any], tokens: int) -> None:
    """What holds of every answer's figures."""
    assert figures["tokens"] == tokens
    drafted, reached, accepted = (figures[name] for name in ("drafted", "reached", "accepted"))
    assert len(drafted) == len(reached) == len(accepted) == 3
    assert drafted[0] == figures["steps"] == reached[0] and all(n <= m for n, m in zip(accepted, reached, strict=True))
    assert all(accepted[i] >= reached[i + 1] for i in range(2))
    assert figures["acceptance_length"] == pytest.approx(1 + sum(accepted) / figures["steps"], rel=1e-5)
    # One token came with the prompt, the others of verify steps; the last step may have gone beyond the end.
    assert tokens <= 1 + figures["steps"] + sum(accepted) <= tokens + 3
    assert all(e is None or 0 < e <= 1 for e in figures["expected_acceptance"])
    assert 0 < figures["entropy"] < 9


@pytest.mark.parametrize("path", [COMPLETION, CHAT], ids=["completions", "chat"])
def test_whole_and_streamed_for_every_choice(server: Server, prompts: list[list[int]], path: str) -> None:
    body: dict[str, Any] = {"n": 2, "prompt": prompts[:2]}
    if path == CHAT:
        body = {"n": 2, "messages": [{"role": "user", "content": "def main(args):"}]}
    whole = figures_of(ask(server, path, FIGURES, **body))
    assert len(whole) == 2 * len(body.get("prompt", [None]))
    for figures in whole:
        check(figures, 20)
    assert whole[0] != whole[1], "the choices must differ, or nothing tells them apart"
    events = streamed(ask(server, path, FIGURES, stream=True, **body))
    assert sorted(events) == list(range(len(whole)))
    for index, figures in enumerate(whole):
        last = events[index][-1]
        assert {k: v for k, v in last.items() if isinstance(v, int)} == {
            k: v for k, v in figures.items() if isinstance(v, int)
        }
        assert last["accepted"] == figures["accepted"] and last["entropy"] == pytest.approx(
            figures["entropy"], rel=1e-3
        )
        assert [f["tokens"] for f in events[index]] == sorted(f["tokens"] for f in events[index])


def test_greedy_requests_have_no_entropy(server: Server, prompts: list[list[int]]) -> None:
    figures = figures_of(ask(server, COMPLETION, FIGURES, prompt=prompts[0], temperature=0.0))[0]
    assert figures["entropy"] == 0.0
    observed = [a / r if r else None for a, r in zip(figures["accepted"], figures["reached"], strict=True)]
    assert figures["expected_acceptance"] == pytest.approx(observed, rel=1e-5), "a greedy draft is right or wrong"


def test_others_are_unaltered(server: Server, prompts: list[list[int]]) -> None:
    plain, asked = (json.loads(ask(server, COMPLETION, given, prompt=prompts[3])) for given in (None, FIGURES))
    assert asked["choices"][0].pop("specdec")
    assert "specdec" not in plain["choices"][0] and plain.get("kv_transfer_params") is None
    assert plain["choices"] == asked["choices"]


def drafted(server: Server) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(server.metrics()):
        for sample in family.samples:
            if sample.name == "specdec_draft_tokens_total" and sample.labels["position"] == "0":
                assert sample.labels["model_name"] == "tiny" and sample.labels["head"] == "head"
                found[sample.labels["tenant"]] = sample.value
    return found


def test_tenants_and_both_api_processes(server: Server, prompts: list[list[int]]) -> None:
    """Each scrape may meet the other process: all show the same, and the counts are those of the answers."""
    before = drafted(server)
    sums = dict.fromkeys(("", "a", "b", "other"), 0)
    for tenant, counted in ((None, ""), ("a", "a"), ("b", "b"), ("c", "other"), ("a", "a"), ("d", "other")):
        asked = {**FIGURES, **({} if tenant is None else {"tenant": tenant})}
        sums[counted] += figures_of(ask(server, COMPLETION, asked, prompt=prompts[0]))[0]["drafted"][0]
    time.sleep(0.5)
    for _ in range(8):
        after = drafted(server)
        assert {t: after.get(t, 0) - before.get(t, 0) for t in sums} == sums


def refused(server: Server, asked: Any, path: str = COMPLETION, **body: Any) -> str:
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(server, path, asked, **body)
    assert error.value.code == 400
    return str(json.loads(error.value.read())["error"]["message"])


def test_bad_requests_are_refused_before_an_answer_begins(server: Server, prompts: list[list[int]]) -> None:
    for stream in (False, True):
        ways = {"prompt": prompts[0], "stream": stream}
        assert "tenant is 'a b'" in refused(server, {"tenant": "a b"}, **ways)
        assert "figures is 'yes please'" in refused(server, {"figures": "yes please"}, **ways)
        assert "this server does not steer" in refused(server, {"steer": [{"feature": 1, "add": 1}]}, **ways)
    elsewhere = refused(server, FIGURES, "/v1/responses", input="x", prompt=None)
    assert "are served by /v1/completions, /v1/chat/completions and" in elsewhere
