"""The plugin's settings: what stands under `--additional-config '{"specdec": {...}}'`.

    {"specdec": {"verify": {"method": "token", "backend": "auto"}, "drafts": {"temperature": "auto"},
                 "metrics": {"enabled": true}}}

Unknown keys and values stop the start with one sentence.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from specdec.errors import SpecdecError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerifySettings(_Section):
    """method: the acceptance rule ("token": Leviathan et al., arXiv 2211.17192; "block": Sun et al., arXiv 2403.10444).
    backend: one of `specdec doctor`'s.
    """

    method: Literal["token", "block"] = "token"
    backend: Literal["auto", "cuda", "triton", "cpu", "reference"] = "auto"


class MetricsSettings(_Section):
    """enabled: count drafts and acceptances for /metrics. max_tenants: how many values of a request's "tenant"
    (specdec/request.py) are counted apart, as a label; later ones go under "other". 0: requests may name none.
    """

    enabled: bool = True
    max_tenants: int = Field(default=0, ge=0, le=1000)


class DraftSettings(_Section):
    """count: how many of num_speculative_tokens are drafted. "fixed": all. "adaptive": as many as make the most tokens
    per second, by what the server's own steps show (specdec/drafting/adaptive); requests that sample with a seed of
    their own have all, so that they repeat. A number: so many, for all.

    temperature: how sharply drafts are drawn (specdec/drafting), which does not change the law of what comes out.
    "same": at the request's own temperature; "calibrated": its scale as in the head's calibration.json; "auto":
    likewise, and for requests without a seed the scales then follow what is accepted.

    kept_mib: MiB that the kept draft rows may take; None: as many as the batch needs. Drafts of requests for which
    there is no room are verified as one-hot: exact, accepted less often, counted in specdec_lost_draft_rows_total.
    """

    count: Literal["fixed", "adaptive"] | Annotated[int, Field(ge=0)] = "fixed"
    temperature: Literal["auto", "calibrated", "same"] = "auto"
    kept_mib: float | None = Field(default=None, gt=0)


class PlacedFile(_Section):
    """An SAE or a vector: path, and the decoder layer whose output it belongs to (0-based); None: as the file says."""

    path: str
    layer: int | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class PlacedSAE(PlacedFile):
    """k: active features per token of a TopK SAE whose files do not say it (Qwen-Scope's, outside a folder of their
    release's name).
    """

    k: int | None = Field(default=None, ge=1)


class SteeringSettings(_Section):
    """What requests may steer with (specdec/steering/program.py). Nothing named: steering is off.

    saes: by name, anything that load_sae reads. vectors: by name, safetensors files with one tensor [width]. layers:
    where requests may bring vectors of their own (0-based; that decoder layer's output). presets: programs by name.

    max_programs: different programs that run at once; a request with one more waits until a place is free. max_edits:
    of one layer in one program. max_strength: bound on every number of an edit.

    max_read: features that one request may read (specdec/steering/reading.py); 0: none, which on a GPU saves a copy of
    the stream at each SAE's layer.
    """

    saes: dict[str, PlacedSAE] = {}
    vectors: dict[str, PlacedFile] = {}
    layers: list[Annotated[int, Field(ge=0)]] = []
    presets: dict[str, dict[str, Any]] = {}
    max_programs: int = Field(default=32, ge=1)
    max_edits: int = Field(default=8, ge=1)
    max_strength: float = Field(default=1000.0, gt=0, allow_inf_nan=False)
    max_read: int = Field(default=64, ge=0)

    @property
    def enabled(self) -> bool:
        return bool(self.saes or self.vectors or self.layers)


class Settings(_Section):
    verify: VerifySettings = VerifySettings()
    drafts: DraftSettings = DraftSettings()
    metrics: MetricsSettings = MetricsSettings()
    steering: SteeringSettings = SteeringSettings()


def parse_settings(additional_config: Any) -> Settings:
    """Settings from an engine's additional config, a dict or None. Raises SpecdecError naming key and remedy."""
    raw = (additional_config or {}).get("specdec", {}) if isinstance(additional_config, dict | None) else None
    if not isinstance(raw, dict):
        raise SpecdecError(f'additional_config["specdec"] must be an object of settings, not {raw!r}')
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise SpecdecError(_first_problem(error, raw)) from None


def _first_problem(error: ValidationError, raw: dict[str, Any]) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in ("specdec", *problem["loc"]))
    if problem["type"] == "extra_forbidden":
        section: Any = Settings
        for part in problem["loc"][:-1]:
            names = getattr(section, "model_fields", None)
            section = get_args(section)[1] if names is None else names[part].annotation  # a dict of sections, or one
        return f"unknown setting {where!r}; known there: {', '.join(section.model_fields)}"
    if str(problem["loc"][-1]).startswith("literal["):  # the first of several types that it may have
        place = problem["loc"][:-1]
        where = where.removesuffix(f".{problem['loc'][-1]}")
        said = " or ".join(p["msg"] for p in error.errors() if p["loc"][:-1] == place)
        return f"setting {where!r} is {problem['input']!r}: {said}"
    return f"setting {where!r} is {problem['input']!r}: {problem['msg']}"
