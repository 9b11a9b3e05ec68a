"""Trains an SAE on a frozen model's residual stream, which is read on the fly."""

import time
from collections.abc import Callable

import torch

from specdec.steering.activations import JumpReLU
from specdec.steering.hooks import output_of
from specdec.steering.sae import SAE
from specdec.steering.training.activations import Activations
from specdec.steering.training.learner import Learner
from specdec.steering.training.settings import Settings
from specdec.training.data import TokenStream
from specdec.training.state import check_unchanged, save_state
from specdec.training.target import Target

WARMUP, DECAY = 0.05, 0.2  # shares of the run with a rising and with a falling rate


class Trainer:
    """Buffer after buffer until the tokens are spent. A resumed run ends where an uninterrupted one would: what it
    depends on is the settings, the data, and the state that is saved between buffers."""

    def __init__(self, settings: Settings, target: Target, stream: TokenStream) -> None:
        settings.check_fits(target.config)
        self.settings, self.target = settings, target
        self.activations = Activations(target, stream, settings)
        self.learner = Learner(target.config.hidden_size, settings.features, settings.k, settings.seed, target.device)
        with torch.no_grad():
            self.learner.b_dec += self.activations.mean
        self.optimizer = torch.optim.Adam(self.learner.parameters, lr=settings.rate)
        self.fingerprints = {"model": target.fingerprint, "data": stream.fingerprint}
        self.buffers_done, self.elapsed = 0, 0.0

    @property
    def total(self) -> int:
        """Optimiser steps of the run."""
        return self.settings.buffers * self.settings.steps_per_buffer

    def run(self, report: Callable[[int, float], None] = lambda step, unexplained: None) -> SAE:
        """report is told steps done and the unexplained share of the variance in the last."""
        saved = started = time.monotonic()
        before = self.elapsed
        while self.buffers_done < self.settings.buffers:
            self._learn(report)
            self.elapsed = before + time.monotonic() - started
            if time.monotonic() - saved > 60 * self.settings.save_every:
                self.save()
                saved = time.monotonic()
        return self.sae()

    def _learn(self, report: Callable[[int, float], None]) -> None:
        settings, number = self.settings, self.buffers_done
        buffer = self.activations.buffer(number)
        for step in range(settings.steps_per_buffer):
            done = number * settings.steps_per_buffer + step
            self.optimizer.param_groups[0]["lr"] = settings.rate * self._rate(done)
            x = self.activations.batch(buffer, number, step)
            loss, unexplained = self.learner.loss(x, settings.death, settings.aux_weight)
            self.optimizer.zero_grad()
            loss.backward()
            self.learner.keep_norms()
            self.optimizer.step()
            self.learner.renorm()
            report(done + 1, unexplained.item())
        self.buffers_done += 1

    def _rate(self, done: int) -> float:
        """Rises linearly, stays, and falls linearly to 0."""
        return min(1.0, (done + 1) / (WARMUP * self.total), (self.total - done) / (DECAY * self.total))

    def save(self) -> None:
        save_state(
            self.settings.output,
            {
                "settings": self.settings.as_dict(), "buffers_done": self.buffers_done, "elapsed": self.elapsed,
                "learner": self.learner.state(), "optimizer": self.optimizer.state_dict(), **self.fingerprints,
            },
        )  # fmt: skip

    def restore(self, state: dict) -> None:
        """SpecdecError: the run that saved it had other settings, another model or other data."""
        self.settings.check_same_run(state["settings"])
        check_unchanged(self.settings.output, state, self.fingerprints)
        self.learner.load(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.buffers_done, self.elapsed = state["buffers_done"], state["elapsed"]

    def sae(self) -> SAE:
        """What is learnt so far, in units of the residual stream: rows of W_dec have norm 1, f is a length in it."""
        scale, learner = self.activations.scale, self.learner
        W_enc, W_dec = learner.W_enc.detach().clone(), learner.W_dec.detach().clone()
        b_dec = learner.b_dec.detach() / scale
        b_enc = learner.b_enc.detach() / scale - b_dec @ W_enc
        threshold = torch.full_like(b_enc, learner.threshold.item() / scale)
        name = self.settings.model_name or self.settings.model.resolve().name
        return SAE(
            W_enc, b_enc, W_dec, b_dec, JumpReLU(threshold), "saelens", self.settings.output,
            layer=self.settings.layer, hook=output_of(self.settings.layer), model_name=name,
        )  # fmt: skip
