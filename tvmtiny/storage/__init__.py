"""How flash may hold weights in fewer bytes: Huffman codes, indices into a codebook, and which of these pays."""
