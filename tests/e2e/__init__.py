"""The whole road as a user walks it: real commands, real processes, real pictures."""
