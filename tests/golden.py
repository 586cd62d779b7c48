"""The closed-form data of the metric specification, without random numbers."""

from __future__ import annotations

import numpy as np

i = np.arange(60)
y = (37 * i % 95) + 0.5 * (i % 2)
p = 0.9 * y + 4 + 3 * np.sin(i)
y_follow = y + 1 + (i % 4)
p_follow = 0.9 * y_follow + 4 + 3 * np.sin(i + 0.7)
p_retest = p + 0.8 * np.cos(1.3 * i) + 0.1
second = 0.8 * y + 9 + 4 * np.cos(2.1 * i)
sex = (i // 3) % 2
mmse = 30 - 0.15 * (p - y) + np.cos(i)

CU = [0.2, 1.1, -0.7, 2.3, 0.4, -1.5, 0.9, 1.8]
MCI = [2.1, 3.4, 0.8, 4.9, 2.7, 1.2, 3.9]
AD = [3.0, 5.5, 1.1, 6.2, 2.4, 4.8, 7.3, 0.6, 3.7]

DIGITS = 6e-7
"""Half a unit of the sixth printed decimal, and a little for rounding."""
