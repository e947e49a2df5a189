"""Katib's search algorithms, early stopping and counts as keys of a study file; used by the importer and by tune().

Pure. What has no equivalent is a line in `refused`: the importer notes it, tune() raises it. Katib gives all settings
as text. Source: kubeflow/katib, pkg/suggestion/v1beta1 (the services of katib-config.yaml), pkg/earlystopping/v1beta1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hpotune.config.yaml_source import Value
from hpotune.errors import nearest

ALGORITHMS: Mapping[str, str] = {
    "random": "random", "grid": "grid", "bayesianoptimization": "gp", "tpe": "tpe", "multivariate-tpe": "tpe",
    "cmaes": "cmaes", "sobol": "sobol", "pbt": "pbt", "hyperband": "hyperband",
}  # fmt: skip
"""Katib's name -> hpotune's. TPE is always multivariate here."""
PARALLEL = 3
"""Katib's default of parallelTrialCount."""
_TPE = {
    "n_startup_trials": "n_startup_trials",
    "n_ei_candidates": "n_ei_candidates",
    "n_EI_candidates": "n_ei_candidates",
}
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "tpe": _TPE,
    "multivariate-tpe": _TPE,
    "bayesianoptimization": {"n_initial_points": "n_startup"},
    "pbt": {
        "n_population": "population",
        "truncation_threshold": "quantile",
        "resample_probability": "resample",
    },
}
"""Algorithm -> its setting -> the option of hpotune."""
_EQUAL: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "bayesianoptimization": {
        "base_estimator": ("GP",),
        "acq_func": ("EI",),
        "acq_optimizer": ("auto", "lbfgs"),
    },
    "cmaes": {"restart_strategy": ("none", "None")},
}
"""Algorithm -> setting -> the values that are what hpotune does anyway."""
_OTHER: Mapping[str, Mapping[str, str]] = {
    "tpe": {"gamma": "Optuna's TPE has its own", "prior_weight": "Optuna's TPE has its own"},
    "cmaes": {"sigma": "the step size starts at a sixth of the ranges"},
    "pbt": {"suggestion_trial_dir": ""},
    "hyperband": {"eta": "", "r_l": "", "resource_name": ""},
}
"""Algorithm -> further settings -> why they are refused; empty: they are read elsewhere, or need nothing."""
_SEEDLESS = ("pbt", "hyperband", "sobol")


@dataclass(frozen=True, kw_only=True, slots=True)
class KatibSearch:
    """An algorithm with its settings as the section `search`."""

    search: Mapping[str, Value]
    resource: tuple[str, float] | None = None
    """hyperband: the parameter that is its budget, and the whole run's value."""
    refused: tuple[str, ...] = ()
    """A line for each setting without an equivalent."""


def katib_search(name: str, settings: Mapping[str, Value]) -> KatibSearch:
    """The section `search` of an algorithm; `auto` where hpotune has none like it."""
    if name not in ALGORITHMS:
        unknown = f"algorithm {name}: is no search of hpotune; {nearest(name, ALGORITHMS)}"
        return KatibSearch(search={"algorithm": "auto"}, refused=(unknown,))
    known = {*_OPTIONS.get(name, {}), *_EQUAL.get(name, {}), *_OTHER.get(name, {})}
    known |= set() if name in _SEEDLESS else {"random_state"}
    search: dict[str, Value] = {"algorithm": ALGORITHMS[name]}
    options: dict[str, Value] = {"resample": 0, "factors": [0.8, 1.2]} if name == "pbt" else {}
    refused = []
    for setting, text in settings.items():
        number = _number(text)
        if setting not in known:
            hint = nearest(setting, known) if known else "it has none"
            refused.append(f"{name}: unknown setting {setting!r}; {hint}")
        elif setting == "random_state":
            if number is None:
                refused.append(f"{name}: random_state={text!r}: needs a whole number")
            else:
                search["seed"] = int(number)
        elif setting in _OPTIONS.get(name, {}):
            value: Value = text if number is None else int(number) if number == int(number) else number
            options[_OPTIONS[name][setting]] = value
        elif (same := _EQUAL.get(name, {}).get(setting)) is not None:
            refused += [] if str(text) in same else [f"{name}: {setting}={text}: hpotune has {same[0]} only"]
        elif _OTHER[name][setting]:
            refused.append(f"{name}: {setting}={text}: is no setting of hpotune: {_OTHER[name][setting]}")
    if options:
        search["options"] = options
    if name == "hyperband":
        return _hyperband(search, settings, refused)
    return KatibSearch(search=search, refused=tuple(refused))


def _hyperband(search: dict[str, Value], settings: Mapping[str, Value], refused: list[str]) -> KatibSearch:
    """Rungs at r_l / eta^k, as Katib's brackets; its resource is the length of the run."""
    eta, most = _number(settings.get("eta", 3)) or 3.0, _number(settings.get("r_l"))
    if "eta" in settings:
        search["pruner_options"] = {"eta": int(eta) if eta == int(eta) else eta}
    resource = None
    if most is not None and most > 1 and "resource_name" in settings and eta >= 2:
        count = int(math.log(most) / math.log(eta) + 1e-9)
        search["rungs"] = [*(round(eta**-k, 6) for k in range(max(1, count), 0, -1)), 1]
        resource = str(settings["resource_name"]), most
    elif "r_l" in settings or "resource_name" in settings:
        refused.append("hyperband: needs r_l above 1 and resource_name together, and eta of at least 2")
    return KatibSearch(search=search, resource=resource, refused=tuple(refused))


@dataclass(frozen=True, kw_only=True, slots=True)
class KatibStopping:
    """Early stopping as keys of `search`."""

    search: Mapping[str, Value] = field(default_factory=dict)
    start_step: int = 4
    """Katib's default: the number of the first report that is judged."""
    refused: tuple[str, ...] = ()


def katib_stopping(name: str, settings: Mapping[str, Value]) -> KatibStopping:
    """The pruner of an early stopping; its rungs depend on the run, and are the caller's.

    Katib's medianstop compares with the mean of the earlier trials, not with their median (its service divides the sum
    by the count); hpotune's `median` compares with the median.
    """
    if name != "medianstop":
        return KatibStopping(refused=(f"early stopping {name}: is none of Katib; valid: medianstop",))
    known: Mapping[str, Callable[[float], bool]] = {
        "min_trials_required": lambda x: x >= 1,
        "start_step": lambda x: x >= 1,
    }
    given, refused = {"min_trials_required": 3, "start_step": 4}, []
    for setting, text in settings.items():
        number = _number(text)
        if setting not in known:
            refused.append(f"medianstop: unknown setting {setting!r}; {nearest(setting, known)}")
        elif number is None or number != int(number) or not known[setting](number):
            refused.append(f"medianstop: {setting}={text!r}: needs a whole number of at least 1")
        else:
            given[setting] = int(number)
    return KatibStopping(
        search={"pruner": "median", "pruner_options": {"n_startup_trials": given["min_trials_required"]}},
        start_step=given["start_step"],
        refused=tuple(refused),
    )


def max_failed(count: int) -> int:
    """`budget.max_failed`: Katib's experiment fails at that many failed trials, hpotune's study above its number."""
    return max(0, count - 1)


def _number(text: Value) -> float | None:
    if isinstance(text, bool) or text is None:
        return None
    try:
        found = float(str(text))
    except ValueError:
        return None
    return found if math.isfinite(found) else None
