"""Integrations with training frameworks: `trainerd.integrations.ignite`. Each needs its framework installed."""
