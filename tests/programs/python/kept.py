"""Keeps many small objects, which come from pools, and some that do not."""

small = [bytes(60 + i % 40) for i in range(200_000)]
large = [bytes(2000) for _ in range(2000)]
