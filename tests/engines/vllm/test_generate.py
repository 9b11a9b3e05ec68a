"""`specdec generate` with the real engine: what it writes, resuming, and what it refuses before anything heavy."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.engines.vllm.engine import FORKS, MODEL

COUNT, PROMPT, OUTPUT = 6, 16, 12


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_text(Path(json.__file__).read_text())
    return path


def generate(text: Path, output: Path, *options: str, count: int = COUNT) -> subprocess.CompletedProcess:
    arguments = ["--model", str(MODEL), "--data", str(text), "--output", str(output), "--count", str(count)]
    arguments += ["--prompt-tokens", str(PROMPT), "--output-tokens", str(OUTPUT), "--eager", *options]
    return FORKS.run("specdec.cli:main", ["generate", *arguments])


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "own.jsonl"
    done = generate(text, output)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def test_documents_are_prompt_and_continuation(whole: Path, text: Path) -> None:
    from transformers import AutoTokenizer

    from specdec.training.data import load_streams

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    source = tokenizer(text.read_text())["input_ids"]
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert len(lines) == COUNT
    for line in lines:
        assert line["prompt_tokens"] == PROMPT - 1 and PROMPT - 1 <= len(line["token_ids"]) <= PROMPT - 1 + OUTPUT
        prompt = line["token_ids"][: PROMPT - 1]
        assert any(source[i : i + PROMPT - 1] == prompt for i in range(len(source)))
    assert len({tuple(line["token_ids"]) for line in lines}) == COUNT
    stream, _ = load_streams(tokenizer, [whole], [whole])
    assert len(stream) == sum(len(line["token_ids"]) + 1 for line in lines)
    assert [p.name for p in whole.parent.iterdir()] == [whole.name], "nothing else may be left behind"


def test_an_interrupted_run_goes_on_behind_its_last_whole_line(whole: Path, text: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.jsonl"
    interrupted, settings = tmp_path / "own.jsonl.part", tmp_path / "own.jsonl.part.json"
    interrupted.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:2]) + b'{"token_ids": [1, 2')
    settings.write_text(
        json.dumps(
            {
                "model": str(MODEL), "data": [str(text)], "count": COUNT, "prompt_tokens": PROMPT,
                "output_tokens": OUTPUT, "temperature": 1.0, "top_p": 1.0, "seed": 0,
            }
        )
    )  # fmt: skip
    assert "add --resume to go on" in generate(text, output).stderr
    assert "--count 6, not 7" in generate(text, output, "--resume", count=7).stderr
    done = generate(text, output, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = (path.read_text().splitlines() for path in (whole, output))
    assert len(after) == COUNT and after[:2] == before[:2]
    prompts = [[json.loads(line)["token_ids"][: PROMPT - 1] for line in lines] for lines in (before, after)]
    assert prompts[0] == prompts[1]
    assert "is there already" in generate(text, output).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--temperature", "0"), "--temperature 0.0 would not sample"),
        (("--top-p", "1.5"), "--top-p 1.5 is not a share"),
        (("--resume",), "leave out --resume to start one"),
    ],
)
def test_refusals(options: tuple[str, ...], message: str, text: Path, tmp_path: Path) -> None:
    done = generate(text, tmp_path / "own.jsonl", *options)
    assert done.returncode == 2 and message in done.stderr and "\n" not in done.stderr.strip()
    assert list(tmp_path.iterdir()) == []
