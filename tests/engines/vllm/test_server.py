"""The real OpenAI server, its engine core in a process of its own: streams, aborts, metrics, and the plugin unused."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from specdec.demo.servers import Server, free_port
from specdec.engines.command import Kind, server_command
from specdec.engines.installed import require_vllm
from specdec.metrics.scrape import parse
from tests.engines.vllm.engine import HEAD, MODEL

# float32: a request's greedy tokens do not depend on what shares its batch.
EXTRA = ("--max-model-len", "256", "--served-model-name", "tiny", "--dtype", "float32")


@contextmanager
def running(kind: Kind, folder: Path) -> Iterator[Server]:
    port = free_port()
    head = None if kind == "none" else str(HEAD)
    command = server_command(kind, require_vllm(), str(MODEL), head, eager=True, port=port, extra=EXTRA)
    with Server(command, port, folder / f"{kind}.log") as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("specdec", tmp_path_factory.mktemp("server")) as server:
        yield server


def post(server: Server, body: dict) -> dict:
    request = urllib.request.Request(
        f"{server.url}/v1/completions",
        json.dumps({"model": "tiny", **body}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return dict(json.load(answer))


def test_streams_and_counts_reach_the_metrics_endpoint(server: Server, prompts: list[list[int]]) -> None:
    """Counters made in the engine's process are those that /metrics shows, and equal vLLM's own."""
    before = parse(server.metrics())
    for ids in prompts[:4]:
        answer = post(server, {"prompt": ids, "max_tokens": 32, "temperature": 1.0, "ignore_eos": True})
        assert answer["usage"]["completion_tokens"] == 32
    time.sleep(1)  # vLLM publishes its own counters once a step has been reported
    grown = parse(server.metrics()).since(before)
    for what in ("draft", "accepted"):
        theirs = grown.total(f"vllm:spec_decode_num_{what}_tokens_total")
        assert grown.total(f"specdec_{what}_tokens_total") == theirs > 0
    expected, observed, reached = (
        grown.total(f"specdec_{name}_total")
        for name in ("expected_acceptance_sum", "accepted_tokens", "reached_draft_tokens")
    )
    # Observed counts are Bernoulli sums around the expected ones: within 5 standard deviations.
    assert abs(expected - observed) < 5 * (reached * 0.25) ** 0.5
    assert 'specdec_tokens_per_step_bucket{head="head",le="1.0",model_name="tiny",tenant=""}' in server.metrics()
    for phase in ("target", "verify", "draft"):
        seconds = f'specdec_phase_seconds_count{{head="head",model_name="tiny",phase="{phase}",tenant=""}} '
        assert float(server.metrics().partition(seconds)[2].partition("\n")[0]) > 20


def test_an_abort_mid_stream_leaves_the_others_alone(server: Server, prompts: list[list[int]]) -> None:
    """A neighbour in flight gets the tokens that it gets alone, whatever is broken off beside it."""
    body = {"prompt": prompts[0], "max_tokens": 200, "temperature": 0.0, "ignore_eos": True}
    alone = post(server, body)["choices"][0]["text"]
    with ThreadPoolExecutor(1) as pool:
        neighbour = pool.submit(post, server, body)
        for ids in prompts[1:5]:
            request = urllib.request.Request(
                f"{server.url}/v1/completions",
                json.dumps({"model": "tiny", **body, "prompt": ids, "temperature": 1.0, "stream": True}).encode(),
                {"Content-Type": "application/json"},
            )
            stream = urllib.request.urlopen(request, timeout=60)
            assert stream.readline().startswith(b"data: ")
            stream.close()
        assert not neighbour.done(), "the neighbour was through before the aborts: the test would prove nothing"
        assert neighbour.result()["choices"][0]["text"] == alone
    assert post(server, body)["choices"][0]["text"] == alone


def test_min_p_and_logit_bias_through_the_api(server: Server, prompts: list[list[int]]) -> None:
    """vLLM refuses both under speculation; with our worker they do what they say."""
    body = {"prompt": prompts[0], "max_tokens": 16, "ignore_eos": True}
    greedy = post(server, {**body, "temperature": 0.0})["choices"][0]["text"]
    # Only the most probable token is as probable as itself, whatever the temperature.
    assert post(server, {**body, "temperature": 1.0, "min_p": 1.0})["choices"][0]["text"] == greedy
    biased = post(server, {**body, "temperature": 1.0, "logit_bias": {"31": 100}, "logprobs": 0})["choices"][0]
    assert len(set(biased["logprobs"]["tokens"])) == 1 and len(biased["logprobs"]["tokens"]) == 16


def test_a_bad_request_is_refused_and_the_server_lives(server: Server, prompts: list[list[int]]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(server, {"prompt": prompts[0], "max_tokens": 8, "temperature": -1.0})
    assert refused.value.code == 400
    assert post(server, {"prompt": prompts[0], "max_tokens": 8})["usage"]["completion_tokens"] == 8


def test_installed_but_not_switched_on_shows_nothing(tmp_path: Path, prompts: list[list[int]]) -> None:
    with running("none", tmp_path) as server:
        post(server, {"prompt": prompts[0], "max_tokens": 8, "temperature": 1.0})
        assert "specdec" not in server.metrics()
