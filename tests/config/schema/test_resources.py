"""What may not stand in the sections that make the job script."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hpotune.config.schema.env_config import EnvConfig
from hpotune.config.schema.resources import ResourcesConfig


@pytest.mark.parametrize(
    ("gpus", "number"),
    [
        (2, 2),
        ("2", 2),
        ("A100:4", 4),
        ("2080ti:2", 2),
        ("3090:1", 1),
        ("1g.10gb:7", 7),
        ("nvidia_a100_80gb_pcie:4", 4),
        ("a100_1g.10gb:1", 1),
    ],
)
@pytest.mark.parametrize("option", ["gpus-per-node", "gres"])
def test_gpus_are_counted_by_node(gpus, number, option):
    assert ResourcesConfig(gpus=gpus, gpu_option=option).gpus_per_node == number


@pytest.mark.parametrize(
    "gpus",
    ["A100", ":4", "a:b:4", "A100:", "A 100:4", "-1", "gpu:a100:4", "a100:4(S:0)", "2080ti"],
)
def test_gpus_without_number_are_refused(gpus):
    with pytest.raises(ValidationError, match="needs a number of GPUs per node, or TYPE:NUMBER"):
        ResourcesConfig(gpus=gpus)


@pytest.mark.parametrize("gpus", ["3090", 3090, "a100:3090"])
def test_type_is_no_number_of_gpus(gpus):
    with pytest.raises(ValidationError, match="too many for a node: needs at most 128"):
        ResourcesConfig(gpus=gpus)


HOSTILE = [
    "a\ntouch PWN #",
    "a\n",
    "a\r#SBATCH --x",
    "a\tb",
    "a\0",
    "\x1b[2J",
    "a\x85b",
    "a\u2028b",
    "\ud800",
    "a\u202eb",
    " ",
]
TEXTS = ["partition", "account", "qos", "constraint", "reservation", "exclude", "wckey"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("key", TEXTS)
def test_resources_are_one_line(key, text):
    with pytest.raises(ValidationError, match=r"needs one line|is empty"):
        ResourcesConfig.model_validate({key: text})


@pytest.mark.parametrize("text", HOSTILE)
def test_sizes_and_times_are_one_line(text):
    for key in ("gpus", "mem", "mem_per_gpu", "mem_per_cpu", "time"):
        for value in (text, f"4{text}", f"{text}4"):
            with pytest.raises(ValidationError):
                ResourcesConfig.model_validate({key: value})


@pytest.mark.parametrize("text", HOSTILE)
def test_options_and_environment_are_one_line(text):
    with pytest.raises(ValidationError):
        ResourcesConfig(extra={"comment": text})
    if text != "\ud800":  # which pydantic cannot have in a key, and the reader of the file refuses
        with pytest.raises(ValidationError):
            ResourcesConfig(extra={f"a{text}": 1})
    for key, value in {"modules": [text], "container": text, "venv": text}.items():
        with pytest.raises(ValidationError):
            EnvConfig.model_validate({key: value})
    if text.strip():
        with pytest.raises(ValidationError, match="needs one line"):
            EnvConfig(vars={"A": text})


@pytest.mark.parametrize("key", ["Licenses", "-p", "--licenses", "a b", "1a", "a=b", "", "a;b", "ä"])
def test_names_of_options_are_checked(key):
    with pytest.raises(ValidationError, match="is no option; needs the long name of an option of sbatch"):
        ResourcesConfig(extra={key: "x"})


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("wrap", "what a job runs"),
        ("array", "budget.parallel"),
        ("job_name", "name sets"),
        ("dependency", "resources.follow_up sets it"),
        ("clusters", "hpotune asks one cluster for its jobs"),
        ("partition", "write resources.partition"),
    ],
)
def test_options_of_hpotune_are_refused(key, says):
    with pytest.raises(ValidationError, match=says):
        ResourcesConfig(extra={key: "x"})


@pytest.mark.parametrize("value", ["it's", 'a "b"', "$(touch PWN)", "a;b", "# b", "a\\b"])
def test_usual_options_are_valid(value):
    assert ResourcesConfig(
        extra={"comment": value, "mail_user": "me@host", "exclusive": True, "nice": 5}
    ).extra
    assert ResourcesConfig(constraint="[a|b]*2&c", account=value).account == value


@pytest.mark.parametrize("time", ["9" * 400, "9" * 19, "99999-00:00:00", "99999999:00:00"])
def test_times_are_bounded(time):
    with pytest.raises(ValidationError, match="is longer than 3650 days; needs less"):
        ResourcesConfig(time=time)
