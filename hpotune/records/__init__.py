"""Plain data that crosses processes: trials, jobs, stop reasons, causes of failure."""
