"""python look.py STUDY: a study of hpotune is an ordinary Optuna study; this opens it with Optuna alone."""

import sys
from pathlib import Path

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)
name = sys.argv[1]
study = optuna.load_study(study_name=None, storage=f"sqlite:///{Path(name, 'store.db')}")
print(f"{study.study_name}: {len(study.trials)} trials, best {study.best_value:.3f}")
for parameter, share in optuna.importance.get_param_importances(
    study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
).items():
    print(f"  {parameter:24} importance {share:.2f}")
