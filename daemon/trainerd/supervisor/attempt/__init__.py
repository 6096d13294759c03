"""Effects around one attempt: launching, monitoring, evidence, stalls, GPUs and cgroups."""
