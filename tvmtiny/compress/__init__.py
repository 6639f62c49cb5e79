"""From a trained torch module to a smaller one: distil, prune, factorize, quantize, cluster. Needs torch."""
