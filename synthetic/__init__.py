"""Made-up models and libraries that both the tests and the benchmarks need."""
