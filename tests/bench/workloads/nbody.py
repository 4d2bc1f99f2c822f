"""Floating-point simulation of five bodies: nbody.py STEPS."""

import sys

BODIES = [
    ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 39.47),
    ([4.84, -1.16, -0.10], [0.60, 2.81, -0.02], 0.037),
    ([8.34, 4.12, -0.40], [-1.01, 1.81, 0.008], 0.011),
    ([12.89, -15.11, -0.22], [1.08, 0.86, -0.01], 0.0017),
    ([15.37, -25.91, 0.17], [0.97, 0.59, -0.03], 0.002),
]
PAIRS = [(a, b) for i, a in enumerate(BODIES) for b in BODIES[i + 1 :]]


def advance(steps, step=0.01):
    for _ in range(steps):
        for (p, v, m), (q, w, n) in PAIRS:
            dx, dy, dz = p[0] - q[0], p[1] - q[1], p[2] - q[2]
            pull = step * (dx * dx + dy * dy + dz * dz) ** -1.5
            for axis, d in enumerate((dx, dy, dz)):
                v[axis] -= d * n * pull
                w[axis] += d * m * pull
        for p, v, _ in BODIES:
            for axis in range(3):
                p[axis] += step * v[axis]


advance(int(sys.argv[1]))
