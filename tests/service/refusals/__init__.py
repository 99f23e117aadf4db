"""Requests that no good client would send, each with the answer that it must get."""
