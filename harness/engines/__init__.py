"""Other people's policy engines: where they come from, and what the embedded lab makes of them."""
