"""The chat on a terminal that an emulator looks at."""
