"""`specdec doctor`: it runs here, and it sees what is broken."""

import json
import subprocess

import pytest

from specdec import doctor


def test_it_runs_here_and_both_outputs_agree(run):
    status, out, _ = run("doctor", "--json")
    report = json.loads(out)
    names = [f["name"] for f in report["findings"]]
    assert {"python", "torch", "cpu", "gpu", "plugin", "verify reference"} <= set(names)
    assert status == (0 if report["healthy"] else 1)
    assert report["healthy"] == all(f["state"] != "broken" for f in report["findings"])
    assert all(f["remedy"] for f in report["findings"] if f["state"] == "broken")


def test_a_broken_finding_ends_with_status_one_and_its_remedy(run, monkeypatch):
    finding = doctor.Finding("vllm", "broken", "vllm 0.1.0 is outside [the] range", "install another")
    monkeypatch.setattr(doctor, "examine", lambda: [finding])
    status, out, _ = run("doctor")
    assert status == 1 and "install another" in out and "1 broken" in out


def test_every_backend_here_equals_the_reference():
    states = {f.name: f.state for f in doctor.backends()}
    assert states["verify cpu"] == states["verify reference"] == "ok"
    assert {states["verify cuda"], states["verify triton"]} <= {"ok", "absent"}


def test_a_backend_that_differs_is_broken(monkeypatch):
    import specdec.verify

    genuine = specdec.verify.verify

    def faulty(*args, backend, **more):
        out = genuine(*args, backend="reference", **more)
        if backend == "cpu":
            out.token_ids[0, 0] += 1
        return out

    monkeypatch.setattr(specdec.verify, "verify", faulty)
    states = {f.name: f.state for f in doctor.backends()}
    assert states["verify reference"] == "ok" and states["verify cpu"] == "broken"


@pytest.mark.parametrize(("status", "state"), [(0, "ok"), (1, "broken")])
def test_torchvision_that_does_not_load_is_found(monkeypatch, status, state):
    """The CUDA build of torchvision beside a CPU build of torch: vLLM would fail at its first import."""
    error = "Traceback\nRuntimeError: operator torchvision::nms does not exist\n" if status else ""
    answer = subprocess.CompletedProcess([], status, "", error)
    monkeypatch.setattr(doctor, "version_of", lambda name: "1.0")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *args, **more: answer)
    (finding,) = doctor.vision()
    assert finding.state == state
    assert status == 0 or ("nms" in finding.detail and "uninstall" in finding.remedy)


def test_missing_pieces(monkeypatch):
    monkeypatch.setattr(doctor, "version_of", lambda name: None)
    monkeypatch.setattr(doctor, "find_vllm", lambda: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.importlib.metadata, "entry_points", lambda group: [])
    states = {f.name: f.state for check in (doctor.packages, doctor.engine, doctor.gpu, doctor.plugin) for f in check()}
    assert states["torch"] == states["vllm"] == states["plugin"] == "broken"
    assert states["gpu"] == states["triton"] == "absent"
    assert not list(doctor.vision())
