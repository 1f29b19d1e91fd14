"""The benchmark against other servers: `python -m bench.run`. See bench/README.md."""
