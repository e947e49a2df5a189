"""Scores a tiny model with its adapter and writes `out/scores.json` on rank 0, for test_lm_eval.py.

Run alone or under torchrun; the job is one JSON document on the command line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hpotune.finetune.model.hub import prepare

prepare(offline=True)

import torch  # noqa: E402 - after prepare, as in a trial
from lm_eval.api.instance import Instance  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from hpotune.config.schema.study_config import ScoreConfig  # noqa: E402
from hpotune.finetune.distributed import ranks as ranking  # noqa: E402
from hpotune.finetune.distributed.fsdp import shard  # noqa: E402
from hpotune.finetune.scoring.distributed_lm import SharedLM  # noqa: E402
from hpotune.finetune.scoring.lm_eval import Wanted, score_tasks  # noqa: E402
from hpotune.finetune.trial_errors import Paused  # noqa: E402
from tests.tiny import topic_rows  # noqa: E402


def requests() -> list[Instance]:
    """Seven prompts whose answers differ in length, so that no two ranks make the same number of passes."""
    prompts = [
        (row["input"], {"until": ["</s>"], "max_gen_toks": 2 + 3 * i}) for i, row in enumerate(topic_rows(7))
    ]
    return [
        Instance(request_type="generate_until", doc={}, arguments=prompt, idx=0, metadata=("texts", i, 1))
        for i, prompt in enumerate(prompts)
    ]


def told(passes: int, ranks: ranking.Ranks) -> Callable[[], bool]:
    """A signal that only the last rank gets, before that many passes of its own are made."""
    left = iter(range(passes, -10_000, -1))
    return lambda: ranks.rank == ranks.world_size - 1 and next(left) <= 0


def paused(lm: SharedLM) -> None:
    """Every rank leaves the scoring with Paused; none waits for another."""
    try:
        lm.generate_until(requests())
    except Paused:
        return
    raise AssertionError("not paused")


def main(job: dict) -> None:
    ranks = ranking.start(ranking.place(os.environ, number=0), os.environ)
    base = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
    model = PeftModel.from_pretrained(base, job["adapter"]).to(base.dtype)
    if job.get("shard"):
        shard(base, ranks, whole=[p for name, p in model.named_parameters() if "lora_" in name])
    score = ScoreConfig(objective=[{"metric": "eval_loss"}], include_path=job["include_path"], batch_size=4)
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    if "stop_after" in job:
        paused(SharedLM(model, tokenizer, batch_size=2, ranks=ranks, stop=told(job["stop_after"], ranks)))
        ranking.stop(ranks)
        return
    lm = SharedLM(model, tokenizer, batch_size=2, ranks=ranks)
    texts = lm.generate_until(requests())
    lm.release()
    state = torch.get_rng_state()
    numbers = score_tasks(
        model,
        tokenizer,
        tasks=[Wanted(**one) for one in job["tasks"]],
        score=score,
        data_root=job.get("data_root"),
        ranks=ranks,
        folder=Path(job["out"]),
    )
    assert torch.equal(state, torch.get_rng_state()), "scoring must not touch the seeds of the training"
    found = {"numbers": numbers, "texts": texts}
    assert all(one == found for one in ranks.gather(found)), "every rank holds the same numbers"
    if ranks.first_one:
        (Path(job["out"]) / "scores.json").write_text(json.dumps(found))
    ranking.stop(ranks)


main(json.loads(sys.argv[1]))
