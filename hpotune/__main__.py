from hpotune.cli import main

main()
