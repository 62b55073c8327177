"""Measuring a server that speaks OpenAI's chat format: one timed answer, many at once, what they amount to."""
