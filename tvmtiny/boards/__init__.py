"""Real boards: what is plugged in, putting a program into flash, and power profilers."""
