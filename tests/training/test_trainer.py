"""One step of the trainer: parts of a batch, recomputed activations, batches without chains; what TensorBoard shows."""

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from specdec.errors import SpecdecError
from specdec.training import objective
from specdec.training.data import TokenStream, load_streams
from specdec.training.logs import Logs
from specdec.training.processes import Processes
from specdec.training.settings import Settings
from specdec.training.target import Target
from specdec.training.trainer import Trainer
from tests.helpers.tiny_models import make_target, write_text


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return Target(make_target(tmp_path_factory.mktemp("target")), torch.float32)


@pytest.fixture(scope="module")
def stream(target, tmp_path_factory):
    return load_streams(target.tokenizer, [write_text(tmp_path_factory.mktemp("text"))], [])[0]


def make(target, stream, output=Path("unused"), **changes):
    options = {"steps": 8, "batch_tokens": 8 * 32, "seq_len": 32, "dtype": "float32", "optimizer": "adamw"}
    settings = Settings(Path("m"), [Path("d")], output, eval_windows=4, **{**options, **changes})
    return Trainer(settings, target, stream, stream)


def course(trainer):
    """Losses and acceptances of a few steps, and the weights behind them."""
    taken = [trainer.step() for _ in range(4)]
    return torch.tensor([[loss, *alphas] for loss, alphas in taken]), torch.cat(
        [p.flatten() for p in trainer.head.parameters()]
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"loss": "ce", "labels": "target"}, {"temperatures": (0.3, 1.3), "top_p": 0.95, "weighting": "one-minus-p"}],
)
def test_accumulated_parts_are_one_large_batch(target, stream, monkeypatch, options):
    """Also in what is drawn, labels and temperatures. Eager acceptances are of some chains, in parts of others."""
    monkeypatch.setattr(objective, "FUSED_FROM", 100)
    whole, parts = (make(target, stream, batch_tokens=8 * 32 // n, accumulate=n, **options) for n in (1, 4))
    assert whole.settings.tokens_per_step == parts.settings.tokens_per_step == 256
    (whole_figures, whole_weights), (figures, weights) = course(whole), course(parts)
    compared = slice(None) if whole.objective.fused else slice(1)
    torch.testing.assert_close(figures[:, compared], whole_figures[:, compared], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights, whole_weights, rtol=0, atol=2e-6)  # they move by 0.01
    smaller = make(target, stream, batch_tokens=2 * 32, **options)
    assert not torch.allclose(course(smaller)[1], whole_weights, rtol=0, atol=1e-4)


def test_recomputed_activations_change_nothing(target, stream):
    kept, recomputed = (course(make(target, stream, checkpoint_activations=on)) for on in (False, True))
    assert all(map(torch.equal, kept, recomputed))


@pytest.mark.parametrize("fused", [False, True])
def test_windows_without_chains(target, monkeypatch, fused):
    """A part, or a process's share, may have none, and so may a batch: that step only lets the momentum run out."""
    if fused:
        monkeypatch.setattr(objective, "FUSED_FROM", 100)
    documents = [list(range(1, 65)) if n % 2 else [] for n in range(8) for _ in range(1 if n % 2 else 64)]
    trainer = make(target, TokenStream.pack(documents, 0), batch_tokens=32, accumulate=2)
    assert trainer.objective.fused == fused
    figures, weights = course(trainer)
    assert figures.isfinite().all() and weights.isfinite().all() and (figures[:, 0] > 0).any()
    empty = make(target, TokenStream.pack([[]] * 200, 0), batch_tokens=32)
    assert (course(empty)[0] == 0).all()


def test_tensorboard_shows_each_step_once_though_a_run_was_cut(target, stream, tmp_path):
    def train(trainer, killed_at):
        logs = Logs(trainer)

        def report(run, loss, alphas):
            logs.report(run, loss, alphas)
            if run.step_number == 4:
                run.save()
            if run.step_number == killed_at:
                raise KeyboardInterrupt

        try:
            trainer.run(report, logs.evaluated)
        finally:
            logs.close()

    options = {"output": tmp_path, "eval_every": 3, "save_every": 100.0}
    with pytest.raises(KeyboardInterrupt):
        train(make(target, stream, **options), killed_at=7)
    again = make(target, stream, **options)
    again.restore(torch.load(tmp_path / "training_state.pt", weights_only=True))
    train(again, killed_at=None)
    events = EventAccumulator(str(tmp_path / "logs"), size_guidance={"scalars": 0})
    events.Reload()
    for name in ("loss", "learning_rate", "tokens_per_second", *(f"acceptance_step_{k}" for k in (1, 2, 3))):
        assert [event.step for event in events.Scalars(f"train/{name}")] == list(range(1, 9)), name
    for name in ("length", "greedy_length", "acceptance_step_3"):
        assert [event.step for event in events.Scalars(f"held_out/{name}")] == [3, 6, 8], name
    assert events.Scalars("held_out/length")[-1].value == pytest.approx(again.evaluate().length)
    assert events.Scalars("train/learning_rate")[-1].value == pytest.approx(again.rate)


def test_a_run_goes_on_with_its_own_target_alone(target, stream, tmp_path):
    trainer = make(target, stream, tmp_path)
    trainer.step()
    trainer.save()
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    other = Target(make_target(tmp_path / "other", seed=1), torch.float32)
    with pytest.raises(SpecdecError, match="the target has changed since the run in"):
        make(other, stream, tmp_path).restore(state)
    del state["target"]  # as runs from before it was kept
    make(target, stream, tmp_path).restore(state)


def test_fewer_windows_than_processes(target, stream):
    processes = Processes("cpu")
    processes.count = 9
    settings = Settings(Path("m"), [Path("d")], Path("o"), batch_tokens=8 * 32, seq_len=32, dtype="float32")
    with pytest.raises(SpecdecError, match="--batch-tokens 256 holds 8 windows, too few for 9 processes"):
        Trainer(settings, target, stream, stream, processes=processes)
