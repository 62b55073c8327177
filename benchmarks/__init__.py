"""Speed, memory and quality beside what users would pick instead: ``make bench``, ``make quality``."""
