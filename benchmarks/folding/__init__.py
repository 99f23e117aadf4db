"""The fold beside public tools: what each leaves, what each gets wrong, and how fast the result runs."""
