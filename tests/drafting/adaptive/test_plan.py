"""Planning against a made-up server whose costs and acceptance are known: what it earns against every fixed number."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from specdec.drafting.adaptive import Planner, Step
from specdec.drafting.adaptive.plan import rounded_up

MOST = 5


@dataclass
class World:
    """A server: seconds of a step's phases, and how likely each request's drafts are accepted. noise: of seconds."""

    acceptance: dict[str, float]
    fixed: float = 2e-3  # of the target's forward
    row: float = 1e-4
    head: float = 1e-4
    once: float = 5e-4  # a pass of the head
    rest: float = 1e-3
    rest_per_row: float = 0.0  # of the engine's work around a step, which no phase shows
    waits: bool = False  # rows of steps without drafts wait for the head (engines/vllm/waiting.py)
    noise: float = 0.1
    drift: float = 0.0  # of the machine's speed: its logarithm wanders by so much, slowly; `seconds` are without it
    new_rows: float = 0.0  # share by which a number of rows is dearer that the last sixty-four did not have
    seed: int = 0
    tokens: float = 0.0
    seconds: float = 0.0
    passes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.slow, self.met = 0.0, list[int]()

    def phases(self, rows: int, passes: int) -> dict[str, float]:
        # Twice the rows of a vector unit's width are no dearer than once: costs have steps.
        target = (self.fixed + self.row * 4 * np.ceil(rows / 4)) * (1 + self.new_rows * (rows not in self.met))
        self.met = [rows, *(known for known in self.met if known != rows)][:64]
        found = {"target": target}
        if passes or not self.waits:
            found["draft"] = self.head * (1 + rows / 50) + passes * self.once
        return {name: seconds * self.random.lognormal(0, self.noise) for name, seconds in found.items()}

    def step(self, counts: dict[str, int], passes: int) -> tuple[Step, float]:
        """With all that it takes, in seconds. counts: drafts verified in it; passes: of the head behind it."""
        rows = len(counts) + sum(counts.values())
        phases = self.phases(rows, passes)
        whole = sum(phases.values()) + self.rest + self.rest_per_row * rows
        probability: list[float] = []
        for name, count in counts.items():
            going = True
            for _ in range(count):
                chance = self.acceptance[name]
                probability.append(float(np.clip(self.random.normal(chance, 0.2), 0, 1)) if going else np.nan)
                going = going and self.random.random() < chance
                self.tokens += going
            self.tokens += 1
        self.seconds += whole
        self.slow += self.random.normal(0, self.drift / 10) - self.slow / 200
        phases, whole = {name: value * np.exp(self.slow) for name, value in phases.items()}, whole * np.exp(self.slow)
        self.passes.append(passes)
        drafts = list(counts.values())
        return Step(rows, passes, len(counts), list(counts), drafts, probability, phases), whole


def run(world: World, steps: int, planner: Planner | None = None, fixed: int | None = None) -> float:
    """Tokens per second of so many steps."""
    names = list(world.acceptance)
    for name in names if planner is not None else ():
        if name not in planner.acceptance._own:
            planner.admit(name, ord(name[0]))
    counts = dict.fromkeys(names, 0 if fixed is None else fixed)
    before = world.tokens, world.seconds
    for _ in range(steps):
        if planner is not None:
            planner.plan(names)
            planner.learn(*world.step(counts, planner.passes))
            counts = {name: planner.count(name) for name in names}
        else:
            assert fixed is not None
            world.step(counts, fixed)
    return (world.tokens - before[0]) / (world.seconds - before[1])


def requests(count: int, acceptance: float) -> dict[str, float]:
    return {f"r{i}": acceptance for i in range(count)}


SERVERS = {
    "alone, easy": World(requests(1, 0.9)),
    "alone, hard": World(requests(1, 0.3)),
    "alone, hopeless": World(requests(1, 0.02)),
    "few": World(requests(8, 0.7)),
    "many, dear rows": World(requests(64, 0.7), row=6e-4),
    "many, cheap rows": World(requests(64, 0.7), row=1e-6),
    "dear head": World(requests(4, 0.7), once=4e-3),
    "few, rows wait": World(requests(3, 0.7), waits=True),
    "many, rows wait, hopeless": World(requests(64, 0.1), waits=True),
    "a machine that drifts": World(requests(16, 0.7), row=2e-4, drift=0.15),
    "new numbers of rows are dear": World(requests(64, 0.7), row=2e-4, new_rows=0.3),
    "dear rows outside of the phases": World(requests(16, 0.7), row=5e-5, rest_per_row=2e-4),
}


@pytest.mark.parametrize("name", SERVERS)
def test_within_three_percent_of_the_best_fixed_number(name: str) -> None:
    given = SERVERS[name]
    fixed = {k: run(replace(given, seed=k), 2000, fixed=k) for k in range(MOST + 1)}
    planner, world = Planner(MOST), replace(given, seed=9, passes=[])
    run(world, 200, planner)
    earned = run(world, 3000, planner)
    assert earned > 0.97 * max(fixed.values()), (earned, fixed)


def test_a_mixed_workload_beats_every_fixed_number() -> None:
    """Requests alone and in crowds, by turns, the same work for all; in the crowd some are easy and some are hard."""

    def seconds(planner: Planner | None, fixed: int | None) -> float:
        alone = World(requests(1, 0.85))
        crowd = World({**{f"e{i}": 0.95 for i in range(16)}, **{f"h{i}": 0.1 for i in range(16)}}, row=1.5e-4)
        for turn in range(1, 16):
            while alone.tokens < turn * 600:
                run(alone, 20, planner, fixed)
            while crowd.tokens < turn * 4000:
                run(crowd, 4, planner, fixed)
        return alone.seconds + crowd.seconds

    fixed = {k: seconds(None, k) for k in range(MOST + 1)}
    adaptive = seconds(Planner(MOST), None)
    assert 1.02 * adaptive < min(fixed.values()), (adaptive, fixed)


def test_hard_requests_get_fewer_drafts_than_easy_ones_beside_them() -> None:
    world = World({**{f"e{i}": 0.95 for i in range(16)}, **{f"h{i}": 0.1 for i in range(16)}}, row=1.5e-4)
    planner = Planner(MOST)
    run(world, 400, planner)
    easy, hard = (np.mean([planner.count(f"{kind}{i}") for i in range(16)]) for kind in "eh")
    assert easy >= hard + 1


def test_steps_with_cut_drafts_have_few_different_numbers_of_rows() -> None:
    """Every new one costs a server something (here nothing: it is looked at what is planned)."""
    rng = np.random.default_rng(0)
    world = World({f"r{i}": float(rng.uniform(0.05, 0.95)) for i in range(48)}, row=1.5e-4)
    planner, rows = Planner(MOST), list[int]()
    run(world, 100, planner)
    for _ in range(60):
        run(world, 8, planner)
        counts = [planner.count(name) for name in world.acceptance]
        if len(set(counts)) > 1:
            rows.append(48 + sum(counts))
    assert len(rows) > 30, "little is cut: the test would prove nothing"
    assert all(rounded_up(count) == count for count in rows) and len(set(rows)) < 8


def test_rows_are_rounded_up_by_an_eighth_at_most() -> None:
    found = [rounded_up(rows) for rows in range(1, 2000)]
    assert all(rows <= to <= 1.125 * rows for rows, to in enumerate(found, 1)) and len(set(found)) < 80


def test_it_follows_when_the_text_changes() -> None:
    world, planner = World(requests(1, 0.02)), Planner(MOST)
    run(world, 1000, planner)
    assert np.mean(world.passes[-200:]) < 1
    world.acceptance = requests(1, 0.95)
    run(world, 1500, planner)
    assert np.mean(world.passes[-200:]) > 4


def test_the_share_of_trials_is_bounded() -> None:
    world, planner = World(requests(4, 0.7), once=4e-3), Planner(MOST)
    run(world, 200, planner)
    run(world, 2000, planner)
    common = max(set(world.passes[-2000:]), key=world.passes[-2000:].count)
    assert np.mean(np.asarray(world.passes[-2000:]) != common) < 0.12


def test_what_is_much_worse_has_its_turn_too() -> None:
    """Its trial costs more than others, so more is saved up for it; nothing is left untried for that."""
    world, planner = World(requests(4, 0.1), row=3e-4, waits=True), Planner(MOST)
    run(world, 200, planner)
    world.passes.clear()
    run(world, 12000, planner)
    assert set(world.passes) == set(range(MOST + 1))


def test_a_crowd_that_thins_out_is_not_spent_on_trials() -> None:
    """Sixteen requests that end one by one, again and again: each number of them is met in a few steps a round."""
    world, planner = World({}, waits=True), Planner(MOST)
    for turn in range(12):
        for left in range(16, 0, -1):
            world.acceptance = {f"r{turn}.{i}": 0.85 for i in range(left)}
            run(world, 4, planner)
        if turn == 2:
            world.passes.clear()
    assert np.mean(np.asarray(world.passes) == 0) < 0.05


def test_a_machine_that_stands_still_does_not_change_the_plan() -> None:
    world, planner = World(requests(1, 0.9)), Planner(MOST)
    run(world, 500, planner)
    step, _ = world.step({"r0": MOST}, MOST)
    planner.learn(replace(step, phases={"target": 3.0, "draft": 3.0}), 9.0)
    run(world, 20, planner)
    assert np.mean(world.passes[-16:]) > 3


def test_forgotten_requests_leave_nothing_behind() -> None:
    planner = Planner(MOST)
    world = World(requests(8, 0.5))
    run(world, 50, planner)
    for name in world.acceptance:
        planner.forget(name)
    assert not planner.acceptance._own
