"""Conversion of a GGUF file to a Hugging Face model folder: weights, tokenizer, chat template.

transformers 5 marks such a model as quantized and refuses to save it, even after every weight is dequantised; the lines
that remove the quantizer work around that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hpotune.config.ownership import check_cache
from hpotune.finetune.trial_errors import UserError
from hpotune.workspace.atomic_files import open_append, set_usual_mode

EDGE = 2**20
"""Bytes at each end of the file that the digest reads: the header with the tokenizer, and the last weights."""


def convert_gguf(file: Path, cache: Path) -> Path:
    """Convert the file once, under `cache`, and return the folder; concurrent processes wait for the first."""
    folder = cache / f"{file.stem}-{_digest(file)}"
    check_cache(cache.parent, cache, folder)
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _convert(file, folder)
    return folder


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(EDGE)
        stream.seek(-min(EDGE, file.stat().st_size), os.SEEK_END)
        content = start + stream.read() + str(file.stat().st_size).encode()
    return hashlib.sha256(content).hexdigest()[:16]


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file lock; without locks in the file system two processes may both convert, with the same result."""
    with open_append(path) as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _convert(file: Path, folder: Path) -> None:
    unfinished = folder.with_name(f"{folder.name}.{os.uname().nodename}.{os.getpid()}")
    try:
        _write_model(file, unfinished)
        for path in unfinished.iterdir():
            set_usual_mode(path)  # safetensors writes 0600 for every umask
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process, not stopped by a lock, was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_model(file: Path, folder: Path) -> None:
    try:
        import gguf  # noqa: F401 - transformers needs it; its own message is less clear
    except ImportError:
        raise UserError(f"{file.name} needs the package gguf; pip install gguf") from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    dtype = getattr(torch, stored_dtype(file))
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
    )
    model.hf_quantizer = None
    model.is_quantized = False
    vars(model.config).pop("quantization_config", None)
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def stored_dtype(file: Path) -> str:
    """The dtype that holds the file's matrices without loss: their own if all are float16 or bfloat16, else float32.

    A 4-bit block is `d * q + m` with float16 d and m: up to 15 significant bits, more than the 8 of bfloat16.
    Training in bfloat16 rounds at loading; on a CPU the float32 values are used.
    """
    from gguf import GGUFReader

    kinds = {tensor.tensor_type.name for tensor in GGUFReader(str(file)).tensors if len(tensor.shape) > 1}
    return {("BF16",): "bfloat16", ("F16",): "float16"}.get(tuple(kinds), "float32")
