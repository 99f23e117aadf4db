"""Everything that measures the service from outside. It knows the URL, and nothing of the service's code."""
