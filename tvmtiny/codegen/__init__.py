"""From scheduled TIR to a directory of C: functions, memory plan, sources, metadata."""
