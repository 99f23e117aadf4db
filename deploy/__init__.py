"""Running Foldserve: monitoring, alerts, containers."""
