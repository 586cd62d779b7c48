"""Functional (BOLD) series: motion, coregistration, one resampling, confounds, connectivity.

Coordinates are RAS+ millimetres throughout.  The chain from a template voxel to a voxel of
volume ``t`` is ``template → T1w → BOLD reference → volume t``; it is composed before any value is
interpolated, so every value is interpolated once.
"""
