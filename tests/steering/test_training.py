"""Training an SAE: it finds planted features, resumes exactly, and what it writes is what it learnt."""

import itertools

import pytest
import torch
from safetensors.torch import load_file

from specdec.errors import SpecdecError
from specdec.steering import load_sae
from specdec.steering.save import save_sae
from specdec.steering.training.learner import Learner
from specdec.steering.training.settings import Settings
from specdec.steering.training.state import prepare_output
from specdec.steering.training.trainer import Trainer
from specdec.training.data import TokenStream, load_documents
from specdec.training.target import Target
from tests.helpers.tiny_models import make_target, write_text


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Target:
    return Target(make_target(tmp_path_factory.mktemp("model")), torch.float32)


@pytest.fixture(scope="module")
def stream(target, tmp_path_factory) -> TokenStream:
    text = write_text(tmp_path_factory.mktemp("text"), 30)
    return TokenStream.of(load_documents(target.tokenizer, [text]))


def settings(output, **changes) -> Settings:
    fields = {
        "model": output, "data": [], "layer": 0, "features": 64, "k": 4, "tokens": 4096, "passes": 2,
        "batch_tokens": 256, "buffer_batches": 4, "seq_len": 32, "lr": 0.003, "save_every": 0.0, "seed": 3,
    }  # fmt: skip
    return Settings(output=output, **{**fields, **changes})


def test_planted_features_are_found():
    """32 directions in 24 dimensions, two active on a token on average: PCA could not tell them apart.

    With other seeds the worst cosine is 0.998 too; the best of 48 random directions has about 0.6.
    """
    g = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(32, 24, generator=g), dim=1)
    learner = Learner(24, 48, 2, seed=1, device=torch.device("cpu"))
    optimizer = torch.optim.Adam(learner.parameters)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.01 * min(1, (400 - step) / 120)
        x = ((torch.rand(512, 32, generator=g) < 0.06) * (1 + torch.rand(512, 32, generator=g))) @ truth
        loss, unexplained = learner.loss(x, death=20_000, aux_weight=1 / 32)
        optimizer.zero_grad()
        loss.backward()
        learner.keep_norms()
        optimizer.step()
        learner.renorm()
    found = (truth @ learner.W_dec.detach().T).max(dim=1).values
    assert found.min() > 0.98 and unexplained < 0.06
    torch.testing.assert_close(learner.W_dec.norm(dim=1), torch.ones(48))


def test_the_batch_decides_together():
    """k per token on average: one with large pre-activations gets more, another fewer; negative ones never count."""
    learner = Learner(2, 4, 1, seed=0, device=torch.device("cpu"))
    with torch.no_grad():
        learner.W_enc.copy_(torch.tensor([[1.0, 0, -1, 0], [0, 1, 0, -1]]))
        learner.W_dec.copy_(learner.W_enc.T)
    x = torch.tensor([[3.0, 2.0], [0.5, 0.1]])
    _, unexplained = learner.loss(x, death=100, aux_weight=0.0)
    # The two largest of the batch are the first token's 3 and 2: it is explained, the second is left over.
    left = 0.5**2 + 0.1**2
    assert unexplained.item() == pytest.approx(left / ((x - x.mean(0)) ** 2).sum().item())
    assert learner.threshold.item() == 2.0
    assert learner.since_active.tolist() == [0, 0, 2, 2]


def test_dead_features_learn_what_is_left_over():
    learner = Learner(2, 4, 1, seed=0, device=torch.device("cpu"))
    with torch.no_grad():
        learner.W_enc.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0.01, 0, 0]]))
    x = torch.tensor([[3.0, 1.0], [2.0, 1.0]])
    learner.since_active[1] = 1000
    learner.loss(x, death=100, aux_weight=1.0)[0].backward()
    assert learner.W_enc.grad[:, 1].abs().sum() > 0, "feature 1 is dead and gets a gradient by the second loss alone"
    assert learner.W_enc.grad[:, 2].abs().sum() == 0, "feature 2 is neither active nor dead"


def test_a_run_resumed_equals_one_that_was_not_interrupted(target, stream, tmp_path):
    whole = Trainer(settings(tmp_path / "a"), target, stream)
    (tmp_path / "a").mkdir()
    expected = whole.run()
    assert whole.total == 4 * 2 * 4 and whole.buffers_done == 4

    (tmp_path / "b").mkdir()
    cut = Trainer(settings(tmp_path / "b"), target, stream)
    steps = itertools.count()

    def interrupt(step: int, unexplained: float) -> None:
        if next(steps) == 19:  # within the third buffer: two are saved
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut.run(interrupt)
    state = prepare_output(tmp_path / "b", resume=True)
    again = Trainer(settings(tmp_path / "b"), target, stream)
    again.restore(state)
    assert again.buffers_done == 2
    sae = again.run()
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(sae, name), getattr(expected, name)), name
    assert torch.equal(sae.activation.threshold, expected.activation.threshold)

    with pytest.raises(SpecdecError, match="was started with --k 4, not 5"):
        Trainer(settings(tmp_path / "b", k=5), target, stream).restore(state)
    other = TokenStream(stream.tokens.flip(0), stream.documents)
    with pytest.raises(SpecdecError, match="the data has changed since"):
        Trainer(settings(tmp_path / "b"), target, other).restore(state)


def test_what_is_written_is_what_was_learnt(target, stream, tmp_path):
    trainer = Trainer(settings(tmp_path, tokens=16384), target, stream)
    sae = trainer.run()
    save_sae(sae, tmp_path / "sae")
    loaded = load_sae(tmp_path / "sae")
    x = target.hidden(trainer.activations.batches[0], layer=0)
    x = x.float().flatten(0, 1)
    assert torch.equal(loaded.encode(x), sae.encode(x))
    assert (loaded.layer, loaded.hook, loaded.format) == (0, "blocks.0.hook_resid_post", "saelens")
    torch.testing.assert_close(loaded.W_dec.norm(dim=1), torch.ones(64))
    # In units of the stream: what the learner makes of the scaled input, over the scale.
    learner, scale = trainer.learner, trainer.activations.scale
    pre = (scale * x - learner.b_dec) @ learner.W_enc + learner.b_enc
    f = pre.relu() * (pre > learner.threshold)
    near = (pre / learner.threshold - 1).abs() < 1e-4
    torch.testing.assert_close(loaded.encode(x)[~near], (f / scale)[~near].detach(), rtol=1e-4, atol=1e-5)
    l0 = (loaded.encode(x) > 0).sum(dim=1).float().mean().item()
    assert 2 < l0 < 6, f"k is 4 per token on average, with the threshold {l0}"
    explained = 1 - (x - loaded.decode(loaded.encode(x))).square().sum() / (x - x.mean(0)).square().sum()
    assert explained > 0.6
    save_sae(sae, tmp_path / "small", torch.bfloat16)
    assert {t.dtype for t in load_file(tmp_path / "small" / "sae_weights.safetensors").values()} == {torch.bfloat16}


def test_attention_sinks_are_left_out(target, stream, tmp_path):
    trainer = Trainer(settings(tmp_path), target, stream)
    first = trainer.activations.buffer(0)
    assert first.square().sum(dim=1).mean().item() == pytest.approx(32, rel=1e-3)  # the width
    trainer.activations.cut = first.norm(dim=1).median().item() / trainer.activations.scale
    assert len(trainer.activations.buffer(0)) == pytest.approx(len(first) / 2, abs=1)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"layer": 2}, "--layer 2: the model has layers 0 to 1"),
        ({"layer": -1}, "--layer must be 0 or above"),
        ({"k": 65}, "--k 65 is more than --features 64"),
        ({"tokens": 0}, "--tokens must be 1 or above"),
        ({"batch_tokens": 16}, "--batch-tokens 16 is less than --seq-len 32"),
        ({"lr": 0.0}, "--lr must be above 0"),
        ({"save_dtype": "float16"}, "--save-dtype 'float16' is unknown"),
    ],
)
def test_options_that_cannot_be(target, stream, tmp_path, change, fault):
    with pytest.raises(SpecdecError, match=fault):
        Trainer(settings(tmp_path, **change), target, stream)


def test_output_folders(tmp_path):
    assert prepare_output(tmp_path / "new", resume=False) is None
    with pytest.raises(SpecdecError, match="no run to resume"):
        prepare_output(tmp_path / "new", resume=True)
    (tmp_path / "new" / "training_state.pt").write_bytes(b"cut")
    with pytest.raises(SpecdecError, match="already holds a training run: add --resume"):
        prepare_output(tmp_path / "new", resume=False)
    with pytest.raises(SpecdecError, match=r"training_state.pt is damaged"):
        prepare_output(tmp_path / "new", resume=True)
    torch.save({"buffers_done": 4}, tmp_path / "new" / "training_state.pt")
    (tmp_path / "new" / "cfg.json").write_text("{}")  # cut short after the SAE, before its figures
    assert prepare_output(tmp_path / "new", resume=True) == {"buffers_done": 4}
    (tmp_path / "new" / "training_state.pt").unlink()
    with pytest.raises(SpecdecError, match="already holds an SAE"):
        prepare_output(tmp_path / "new", resume=True)
