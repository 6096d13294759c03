"""Life cycle of the supervisor process: configuration, preflight, start, shutdown and handover."""
