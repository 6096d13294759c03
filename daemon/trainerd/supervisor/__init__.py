"""The supervisor: watches the jobs folder, decides, launches, judges and restarts. Never imports torch."""
