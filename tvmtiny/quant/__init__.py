"""Quantization: calibration, ranges, real numbers to integers, the integer arithmetic itself."""
