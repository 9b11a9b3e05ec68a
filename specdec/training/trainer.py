"""Trains a head against a frozen target that runs on the fly."""

import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specdec.errors import SpecdecError
from specdec.evaluation.acceptance import Acceptance, measure_acceptance
from specdec.heads.module import MTPHead
from specdec.training.batches import Batches, held_out_windows
from specdec.training.calibrate import calibrate
from specdec.training.chain import chain_anchors, run_states
from specdec.training.data import TokenStream, Windows
from specdec.training.draws import Draws
from specdec.training.objective import Objective
from specdec.training.optim import make_optimizers, rate_factor, set_rate
from specdec.training.processes import Processes
from specdec.training.settings import Settings
from specdec.training.sharding import load_module, load_optimizer, whole
from specdec.training.start import check_run, initial_head
from specdec.training.state import check_unchanged, finish, save_state
from specdec.training.target import Target

Report = Callable[["Trainer", float, list[float]], None]
HiddenSource = Callable[[Tensor, Windows], Tensor]


class Part(NamedTuple):
    """What one process runs at once: windows, their places and numbers (see Batches), where their chains start."""

    places: Tensor
    numbers: Tensor
    windows: Windows
    anchors: Tensor


class Trainer:
    """One run: `step` after `step` until the budget is spent, then the held-out figures.

    Everything that the run depends on is the settings, the data and the state that `save` writes, so a resumed run ends
    where an uninterrupted one would (with a budget in steps; one in minutes follows the clock). All processes of a run
    call the same methods; the first one writes.
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        train: TokenStream,
        held_out: TokenStream,
        hidden: HiddenSource | None = None,
        processes: Processes | None = None,
    ) -> None:
        """hidden: gives the target's states of windows by their numbers when they are kept; None: runs the target.

        processes: None: those that accelerate launch has started, on the target's device.
        """
        check_run(settings, target.config)
        self.settings, self.target = settings, target
        self.processes = processes or Processes(target.device.type)
        if settings.rows < self.processes.count:
            raise SpecdecError(
                f"--batch-tokens {settings.batch_tokens} holds {settings.rows} windows, too few for "
                f"{self.processes.count} processes: raise it, or start fewer"
            )
        self.batches = Batches(
            train, settings.rows, settings.seq_len, settings.seed, overlap=settings.num_steps_ahead + 1
        )
        self.held_out = held_out_windows(held_out, settings.rows, settings.seq_len, settings.eval_windows)
        self.hidden = hidden or (lambda numbers, windows: target.hidden(windows))
        self.total = settings.steps
        if settings.steps is None and settings.minutes is None:
            self.total = -(-self.batches.per_epoch // (settings.accumulate * settings.rows))
        self.head = initial_head(settings, target)
        self.head.recompute = settings.checkpoint_activations
        self.model = self.processes.wrap(self.head)
        self.optimizers = make_optimizers(self.head, settings.optimizer, settings.rate)
        self.objective = Objective(settings, target)
        self.autocast = settings.dtype == "bfloat16"
        self.step_number, self.elapsed = 0, 0.0

    @property
    def progress(self) -> float:
        """Share of the budget spent, in steps or minutes, whichever is further."""
        by_steps = self.step_number / self.total if self.total else 0.0
        by_time = self.elapsed / (60 * self.settings.minutes) if self.settings.minutes else 0.0
        return max(by_steps, by_time)

    @property
    def rate(self) -> float:
        """The learning rate of the last step (Muon's, where AdamW has the vectors)."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def step(self) -> tuple[float, list[float]]:
        """One optimiser step; returns the loss and the mean acceptance of each chain step, over all processes."""
        set_rate(self.optimizers, rate_factor(self.progress, self.settings.schedule, self.settings.warmup))
        parts = [self._part(i) for i in range(self.settings.accumulate)]
        [chains] = self.processes.sum([float(sum(int(part.anchors.sum()) for part in parts))])
        # The mean over the chains of all parts and processes; between processes, gradients are averaged, not summed.
        divisor = max(1.0, chains) / self.processes.count
        losses, alphas = [], torch.zeros(self.settings.num_steps_ahead, dtype=torch.float64)
        for part in parts:
            with self.processes.part(self.model, last=part is parts[-1]):
                per_chain, part_alphas = self._chain_losses(part)
                loss = per_chain.sum() / divisor
                loss.backward()
            losses.append(loss.detach())
            if len(per_chain):
                alphas += len(per_chain) * torch.tensor(part_alphas, dtype=torch.float64)
        self._update()
        own = torch.stack(losses).sum().item() / self.processes.count
        total, *sums = self.processes.sum([own, *alphas.tolist()])
        return total, [alpha / max(1.0, chains) for alpha in sums]

    def _part(self, number: int) -> Part:
        """This process's share of part `number` of the step."""
        places = self.processes.share(self.batches.places(self.step_number * self.settings.accumulate + number))
        numbers = self.batches.numbers(places)
        windows = self.batches.windows(numbers)
        anchors = chain_anchors(windows, self.settings.num_steps_ahead, self.objective.labelled)
        return Part(places, numbers, windows, anchors)

    def _chain_losses(self, part: Part) -> tuple[Tensor, list[float]]:
        """Loss of each of the part's chains [n], and their mean acceptance at each step."""
        states = run_states(
            self.model, self.target, part.windows, self.hidden(part.numbers, part.windows),
            self.settings.num_steps_ahead, self.autocast, self.objective.labelled,
        )  # fmt: skip
        return self.objective(states, Draws(self.settings.seed, part.places, part.anchors), self.autocast)

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step_number += 1

    def run(self, report: Report, evaluated: Callable[["Trainer", Acceptance], None]) -> dict[str, Any]:
        """Trains to the end of the budget, saving on the way; writes and returns the final report."""
        settings = self.settings
        began, last_saved = time.monotonic() - self.elapsed, self.elapsed
        while self.progress < 1.0:
            loss, alphas = self.step()
            self.elapsed = self.processes.of_main(time.monotonic() - began)
            report(self, loss, alphas)
            if self.elapsed - last_saved > 60 * settings.save_every:
                self.save()
                last_saved = self.elapsed
            if self.step_number % settings.eval_every == 0 and self.progress < 1.0:
                evaluated(self, self.evaluate())
        result = self.evaluate()
        evaluated(self, result)
        summary, head = self._summary(result), self._whole_head()
        if self.processes.is_main:
            scales = calibrate(head, self.target, self.held_out, settings.num_steps_ahead, self.autocast)
            finish(settings.output, head, scales, summary, self._state(finished=True))
        self.processes.wait()
        return summary

    def evaluate(self) -> Acceptance:
        """Held-out acceptance at temperature 1, without filters. Every process measures it."""
        return measure_acceptance(
            self.head, self.target, self.held_out, self.settings.num_steps_ahead, autocast=self.autocast
        )

    def save(self) -> None:
        """Writes what `restore` needs to go on exactly, with as many processes or others."""
        state = self._state(finished=False)
        if self.processes.is_main:
            save_state(self.settings.output, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state. Raises SpecdecError where it is another run's."""
        self.settings.check_same_run(state["settings"])
        check_unchanged(self.settings.output, state, self._fingerprints())
        load_module(self.head, state["head"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_optimizer(optimizer, saved)
        torch.set_rng_state(state["rng"])
        self.step_number, self.elapsed = state["step"], state["elapsed"]

    def _state(self, finished: bool) -> dict[str, Any]:
        state = {
            "finished": finished,
            "step": self.step_number,
            "elapsed": self.elapsed,
            "settings": self.settings.as_dict(),
            **self._fingerprints(),
        }
        if not finished:
            state["head"] = whole(self.head.state_dict())
            state["optimizers"] = [whole(optimizer.state_dict()) for optimizer in self.optimizers]
            state["rng"] = torch.get_rng_state()
        return state

    def _fingerprints(self) -> dict[str, str]:
        return {"data": self.batches.stream.fingerprint, "target": self.target.fingerprint}

    def _whole_head(self) -> MTPHead:
        """The head as one process has it, on the device."""
        if not self.processes.sharded:
            return self.head
        head = MTPHead(self.head.config).to(self.processes.device)
        head.load_state_dict(whole(self.head.state_dict()))
        return head

    def _summary(self, result: Acceptance) -> dict[str, Any]:
        settings = {k: v for k, v in self.settings.as_dict().items() if v is not None}
        return {
            "held_out": result.as_dict(), "steps": self.step_number, "minutes": round(self.elapsed / 60, 3),
            "tokens": self.step_number * self.settings.tokens_per_step, "processes": self.processes.count,
            "parameters": sum(p.numel() for p in self.head.parameters()), "settings": settings,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }  # fmt: skip
