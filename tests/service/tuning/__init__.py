"""What finds settings, and what measures it."""
