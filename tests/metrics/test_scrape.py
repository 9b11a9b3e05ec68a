"""What a server's /metrics says, as numbers."""

from specdec.metrics.scrape import parse

TEXT = """\
# TYPE process_x gauge
process_x 1
# TYPE vllm:drafts counter
vllm:drafts_total{engine="0",position="10"} 7
vllm:drafts_total{engine="0",position="9"} 3
vllm:drafts_total{engine="1",position="9"} 5
"""


def test_other_metrics_are_left_out() -> None:
    assert {name for name, _ in parse(TEXT).values} == {"vllm:drafts_total"}


def test_labels_are_added_up_told_apart_and_asked_for() -> None:
    found = parse(TEXT)
    assert found.total("vllm:drafts_total") == 15 and found.total("vllm:drafts_total", engine="0") == 10
    assert found.by("vllm:drafts_total", "engine", position="9") == {"0": 3, "1": 5}
    assert found.by_position("vllm:drafts_total") == [8, 7], "10 behind 9"
    assert found.by_position("vllm:drafts_total", engine="1") == [5] and found.by_position("vllm:other") == []


def test_since_gives_what_was_added_and_when() -> None:
    grown = parse(TEXT.replace("} 5", "} 9"), at=3.0).since(parse(TEXT, at=1.0))
    assert grown.total("vllm:drafts_total") == 4 and grown.seconds == 2


def test_shares_of_nothing_are_none() -> None:
    found = parse(TEXT)
    assert found.share("vllm:drafts_total", "vllm:drafts_total") == 1
    assert found.share("vllm:drafts_total", "vllm:other") is None
