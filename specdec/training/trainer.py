"""Trains a head against a frozen target that runs on the fly."""

import platform
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.evaluation.acceptance import Acceptance, measure_acceptance
from specdec.heads.checkpoint import load_head
from specdec.heads.config import HeadConfig
from specdec.heads.module import MTPHead, init_from_target, init_random
from specdec.training.batches import Batches, held_out_windows
from specdec.training.chain import chain_anchors, run_states
from specdec.training.data import TokenStream, Windows
from specdec.training.draws import Draws
from specdec.training.objective import Objective
from specdec.training.optim import make_optimizers, rate_factor, set_rate
from specdec.training.settings import Settings
from specdec.training.state import finish, save_state
from specdec.training.target import Target

Report = Callable[["Trainer", float, list[float]], None]
HiddenSource = Callable[[Tensor, Windows], Tensor]


class Trainer:
    """One run: `step` after `step` until the budget is spent, then the held-out figures.

    Everything that the run depends on is the settings, the data and the state that `save` writes, so a resumed run ends
    where an uninterrupted one would (with a budget in steps; one in minutes follows the clock).
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        train: TokenStream,
        held_out: TokenStream,
        hidden: HiddenSource | None = None,
    ) -> None:
        """hidden: gives the target's states of windows by their numbers when they are kept; None: runs the target."""
        self.settings, self.target = settings, target
        longest = getattr(target.config, "max_position_embeddings", settings.seq_len)
        if settings.seq_len > longest:
            raise SpecdecError(
                f"--seq-len {settings.seq_len} is too long: the target knows at most {longest} positions"
            )
        self.batches = Batches(
            train, settings.rows, settings.seq_len, settings.seed, overlap=settings.num_steps_ahead + 1
        )
        self.held_out = held_out_windows(held_out, settings.rows, settings.seq_len, settings.eval_windows)
        self.hidden = hidden or (lambda numbers, windows: target.hidden(windows))
        self.total = settings.steps
        if settings.steps is None and settings.minutes is None:
            self.total = -(-self.batches.per_epoch // settings.rows)
        self.head = self._initial_head().to(target.device)
        self.optimizers = make_optimizers(self.head, settings.optimizer, settings.rate)
        self.objective = Objective(settings, target)
        self.autocast = settings.dtype == "bfloat16"
        self.step_number, self.elapsed = 0, 0.0

    def _initial_head(self) -> MTPHead:
        settings, config = self.settings, HeadConfig.for_target(self.target.config)
        if settings.init_from is not None:
            return load_head(settings.init_from, self.target.config)
        head = MTPHead(config)
        generator = torch.Generator().manual_seed(settings.seed)
        init_random(head, generator=generator)
        if settings.init == "last-layer":
            init_from_target(head, self.target.model, generator=generator)
        return head

    @property
    def progress(self) -> float:
        """Share of the budget spent, in steps or minutes, whichever is further."""
        by_steps = self.step_number / self.total if self.total else 0.0
        by_time = self.elapsed / (60 * self.settings.minutes) if self.settings.minutes else 0.0
        return max(by_steps, by_time)

    def step(self) -> tuple[float, list[float]]:
        """One optimiser step; returns the loss and the mean acceptance of each chain step in the batch."""
        places = self.batches.places(self.step_number)
        numbers = self.batches.numbers(places)
        windows = self.batches.windows(numbers)
        set_rate(self.optimizers, rate_factor(self.progress, self.settings.schedule, self.settings.warmup))
        hidden = self.hidden(numbers, windows)
        steps, objective = self.settings.num_steps_ahead, self.objective
        states = run_states(self.head, self.target, windows, hidden, steps, self.autocast, objective.labelled)
        draws = Draws(self.settings.seed, places, chain_anchors(windows, steps, objective.labelled))
        per_chain, alphas = objective(states, draws, self.autocast)
        loss = per_chain.sum() / max(1, len(per_chain))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step_number += 1
        return loss.item(), alphas

    def run(self, report: Report, evaluated: Callable[["Trainer", Acceptance], None]) -> dict[str, Any]:
        """Trains to the end of the budget, saving on the way; writes and returns the final report."""
        settings = self.settings
        began = last_saved = time.monotonic()
        began -= self.elapsed
        while self.progress < 1.0:
            loss, alphas = self.step()
            self.elapsed = time.monotonic() - began
            report(self, loss, alphas)
            if time.monotonic() - last_saved > 60 * settings.save_every:
                self.save()
                last_saved = time.monotonic()
            if self.step_number % settings.eval_every == 0 and self.progress < 1.0:
                evaluated(self, self.evaluate())
        result = self.evaluate()
        evaluated(self, result)
        summary = self._summary(result)
        finish(settings.output, self.head, summary, self._state(finished=True))
        return summary

    def evaluate(self) -> Acceptance:
        """Held-out acceptance at temperature 1, without filters."""
        return measure_acceptance(
            self.head, self.target, self.held_out, self.settings.num_steps_ahead, autocast=self.autocast
        )

    def save(self) -> None:
        """Writes what `restore` needs to go on exactly."""
        save_state(self.settings.output, self._state(finished=False))

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state. Raises SpecdecError where it is another run's."""
        self.settings.check_same_run(state["settings"])
        if state.get("data") != self.batches.stream.fingerprint:
            raise SpecdecError(
                f"the data has changed since the run in {self.settings.output} was started: restore it, or train into "
                "another --output"
            )
        self.head.load_state_dict(state["head"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["rng"])
        self.step_number, self.elapsed = state["step"], state["elapsed"]

    def _state(self, finished: bool) -> dict[str, Any]:
        state = {
            "finished": finished,
            "step": self.step_number,
            "elapsed": self.elapsed,
            "settings": self.settings.as_dict(),
            "data": self.batches.stream.fingerprint,
        }
        if not finished:
            state["head"] = self.head.state_dict()
            state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
            state["rng"] = torch.get_rng_state()
        return state

    def _summary(self, result: Acceptance) -> dict[str, Any]:
        settings = {k: v for k, v in self.settings.as_dict().items() if v is not None}
        return {
            "held_out": result.as_dict(), "steps": self.step_number, "minutes": round(self.elapsed / 60, 3),
            "tokens": self.step_number * self.settings.rows * self.settings.seq_len,
            "parameters": sum(p.numel() for p in self.head.parameters()), "settings": settings,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }  # fmt: skip
