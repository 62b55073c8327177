"""Named hostile model files, as data: what is spoilt in a good model, and what must be said of it."""
