"""Integrations with training frameworks, such as `trainerd.integrations.ignite`. Each needs its framework."""
