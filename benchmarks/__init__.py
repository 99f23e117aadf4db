"""Side-by-side measurements. They may use everything; nothing uses them."""
