"""The protocols of existing clients, in process; `tests.clients` asks with the clients themselves."""
