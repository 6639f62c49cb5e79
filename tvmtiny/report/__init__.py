"""What a compiled model does at run time: where its instructions, cycles and bytes go."""
