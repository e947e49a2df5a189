import os
import sys

if os.environ.get("PYTHONSAFEPATH"):
    if sys.version_info < (3, 11) and sys.path[:1] == [os.getcwd()]:  # it does not know the variable
        del sys.path[0]
    if os.environ["PYTHONSAFEPATH"] == "hpotune":  # set by a job script for this process, not for its trials
        del os.environ["PYTHONSAFEPATH"]

from hpotune.cli import main

main()
