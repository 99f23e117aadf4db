"""Other servers' own clients, unmodified, against the running service.

Each script beside this file runs in the clients' environment (`make clients`); it imports nothing of ours.
"""
