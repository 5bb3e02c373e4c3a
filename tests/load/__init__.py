"""Load tests (`make load`, `make soak`; start at harness.py) and benchmarks (`make bench`)."""
