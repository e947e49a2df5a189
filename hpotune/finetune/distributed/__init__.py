"""Several ranks as one trial: process groups and FSDP2."""
